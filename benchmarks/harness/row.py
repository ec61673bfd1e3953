"""Describes comparisons: contenders, goals, rows. Imports no TensorFlow."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """A contender in a row.

    Attributes:
        label: name in the table.
        maker: "module:function" below `benchmarks.contenders`.
        arguments: the function's arguments.
        environment: environment variables of its process.
        python: the interpreter that has its packages.
        work: work per item, in the same unit for the whole row; speeds are compared per work if
            contenders do not compute the same (for example ResNet50 v1 and v1.5).
    """

    label: str
    maker: str
    arguments: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    python: str = sys.executable
    work: float = 1.0


@dataclass(frozen=True)
class Goal:
    """Requires that `figure` of `ours`, divided by that of `peer`, is at least (at most) `bound`.

    Attributes:
        ours: a label, or several: the best one counts, which depends on the machine (bfloat16 is
            fast if the processor has instructions for it).
        peer: the same for the peer; None uses the figure itself.
        figure: "speed" (items × work per second), or a figure that contenders report.
        at_least: False for figures that should be small.
    """

    ours: str | tuple[str, ...]
    peer: str | tuple[str, ...] | None
    bound: float
    figure: str = "speed"
    at_least: bool = True


@dataclass(frozen=True)
class Row:
    """One comparison, run by `python -m benchmarks --only NAME`.

    Attributes:
        title: describes the comparison, with sizes.
        figures: figures in the table, with their units.
        target_s: intended length of a turn.
        note: a sentence below the table.
    """

    name: str
    title: str
    entries: Sequence[Entry]
    goals: Sequence[Goal] = ()
    figures: dict[str, str] = field(default_factory=lambda: {"speed": "images/s"})
    rounds: int = 7
    target_s: float = 2.0
    note: str = ""
