"""Adds an evaluation's results to a complete checkpoint, as `score.json` in its folder.

A checkpoint never changes once its marker exists, and the marker exists before evaluation begins.
So the marker does not list this file: if it is missing, cut short, damaged, or of another
checkpoint, the checkpoint is still complete, but not evaluated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convoy.utils import strict_json
from convoy.utils.files import Remote, write_atomically

FILE, MARKER = "score.json", "COMPLETE.json"
TOP1 = "eval_accuracy_top_1"
"""Name of the evaluation result in `state.json`'s `metrics` that shows whether an evaluation was
done.
"""


def write_score(folder: Path | Remote, facts: Mapping[str, Any]) -> None:
    """Adds to or replaces facts in the `state.json` of a complete checkpoint.

    Raises:
        OSError: it cannot be written; the checkpoint does not change.
    """
    content = {"of": _digest(folder, facts), **facts}
    write_atomically(folder / FILE, strict_json.dumps(content, indent=1))


def with_score(folder: Path | Remote, state: Mapping[str, Any], has_ema: bool) -> dict[str, Any]:
    """Returns a complete checkpoint's state with the results of its evaluation, if there was one.

    `better_weights` is "ema" if no evaluation has compared the weights yet, but never without an
    average; older versions wrote "raw" and "ema" there.

    Args:
        folder: the checkpoint's.
        state: the content of `state.json`.
        has_ema: whether the checkpoint holds a moving average.
    """
    state = {**state, **_read(folder)}
    if "better_weights" in state:
        if not has_ema:
            state["better_weights"] = "raw"
        elif TOP1 not in state.get("metrics", {}):
            state["better_weights"] = "ema"
    return state


def _read(folder: Path | Remote) -> dict[str, Any]:
    try:
        facts = dict(json.loads((folder / FILE).read_text(encoding="utf-8")))
        return facts if facts.pop("of") == _digest(folder, facts) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _digest(folder: Path | Remote, facts: Mapping[str, Any]) -> str:
    """Returns a checksum of the facts and of the marker, which has the checksums of all weights."""
    marker = (folder / MARKER).read_bytes()
    return hashlib.sha256(marker + strict_json.dumps(facts, sort_keys=True).encode()).hexdigest()
