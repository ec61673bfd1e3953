"""What an evaluation adds to a checkpoint that is whole already: `score.json` in its folder.

A checkpoint never changes once its marker is there, and it is there before evaluation begins. So
this file is not among those that the marker lists: one that is missing, cut short, damaged, or of
another checkpoint leaves the checkpoint as it is, whole and not evaluated.
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
"""The evaluation result that tells, in `state.json`'s `metrics`, whether there ever was one."""


def write_score(folder: Path | Remote, facts: Mapping[str, Any]) -> None:
    """Adds to, or replaces, what `state.json` of a whole checkpoint says.

    Raises:
        OSError: it cannot be written; the checkpoint is as it was.
    """
    content = {"of": _digest(folder, facts), **facts}
    write_atomically(folder / FILE, strict_json.dumps(content, indent=1))


def with_score(folder: Path | Remote, state: Mapping[str, Any], has_ema: bool) -> dict[str, Any]:
    """A whole checkpoint's state with what its evaluation has added, if there was one.

    `better_weights` is "ema" where no evaluation has ever told which weights are better, and never
    where there is no average; older versions wrote "raw" and "ema" there.

    Args:
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
    """A checksum of the facts and of the marker, which has those of all weights."""
    marker = (folder / MARKER).read_bytes()
    return hashlib.sha256(marker + strict_json.dumps(facts, sort_keys=True).encode()).hexdigest()
