"""JSON that every reader takes: what is no number, or infinite, is null there.

Python's `json` would write `NaN` and `Infinity`, which JSON does not have. All our JSON goes
through here, but for messages between our own processes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def dumps(value: Any, **options: Any) -> str:
    """`json.dumps`, also of NumPy's numbers and arrays."""
    return json.dumps(plain(value), allow_nan=False, **options)


def plain(value: Any) -> Any:
    """Dicts, lists, texts and finite numbers; null for other numbers. What JSON has no form for
    stays as it is.
    """
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float):  # NumPy's float64 is one
        return float(value) if math.isfinite(value) else None
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return plain(value.tolist())
    return value
