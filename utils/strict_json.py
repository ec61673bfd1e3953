"""Writes JSON that every reader accepts: NaN and infinities become null.

Python's `json` would write `NaN` and `Infinity`, which are not JSON. All our JSON goes through this
module, except messages between our own processes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def dumps(value: Any, **options: Any) -> str:
    """Does `json.dumps`, also for NumPy's numbers and arrays."""
    return json.dumps(plain(value), allow_nan=False, **options)


def plain(value: Any) -> Any:
    """Converts to dicts, lists, texts and finite numbers; other numbers become null.

    Values without a JSON form do not change.
    """
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float):  # includes NumPy's float64
        return float(value) if math.isfinite(value) else None
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return plain(value.tolist())
    return value
