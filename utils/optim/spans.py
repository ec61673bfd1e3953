"""Converts lengths of time within a run: epochs, steps, or percent of the run.

Only this module converts `5`, `500 steps` and `10%` to steps. (The idea is big_vision's.)
"""

from __future__ import annotations

import math
import re
from typing import TypeAlias

Span: TypeAlias = float | str
"""A number means epochs; a text is a number and a unit: `5 epochs`, `500 steps`, `10%`."""

_TEXT = re.compile(r"([-+.\w]+?)\s*(epochs?|steps?|%)?")


def parse_span(span: Span) -> tuple[float, str]:
    """Splits a span into number and unit: "epochs", "steps" or "%".

    Raises:
        ValueError: it is not a span, is negative, or is more than 100 %.
    """
    match = _TEXT.fullmatch(str(span).strip().lower())
    try:
        number = float(match.group(1)) if match else math.nan
    except ValueError:
        number = math.nan
    if match is None or not math.isfinite(number):
        raise ValueError(
            f"give epochs (5), steps (500steps) or a share of the run (10%), not {span}"
        )
    unit = match.group(2) or "epochs"
    unit = unit if unit == "%" else unit.rstrip("s") + "s"
    if number < 0 or (unit == "%" and number > 100):
        raise ValueError(f"must be at least 0, and at most 100%, not {span}")
    return number, unit


def to_steps(span: Span, *, steps_per_epoch: int, total_epochs: float) -> float:
    """Converts a span to optimizer updates; a fraction if it ends between two of them.

    Args:
        span: see `Span`. Percentages are of the whole run.
        steps_per_epoch: optimizer updates in an epoch.
        total_epochs: length of the run.

    Raises:
        ValueError: it is not a span.

    Example:
        >>> [to_steps(s, steps_per_epoch=100, total_epochs=20) for s in (1.5, "40 steps", "10%")]
        [150.0, 40.0, 200.0]
    """
    number, unit = parse_span(span)
    if unit == "steps":
        return number
    epochs = number if unit == "epochs" else total_epochs * number / 100
    return epochs * steps_per_epoch
