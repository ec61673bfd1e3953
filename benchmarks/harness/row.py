"""Describes comparisons: contenders, goals and rows. Does not import TensorFlow."""

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
        work: work per item, in the same unit for the whole row. The row compares items × work per
            second, because contenders may compute different networks (ResNet50 v1 and v1.5).
    """

    label: str
    maker: str
    arguments: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    python: str = sys.executable
    work: float = 1.0


@dataclass(frozen=True)
class Goal:
    """A bound on the ratio of a figure between Convoy and another program: `ours` ÷ `peer`.

    Attributes:
        ours: Convoy's label, or several labels: the best of them counts. Which one is best depends
            on the machine (bfloat16 is fast if the processor has instructions for it).
        peer: the other program's label or labels; None bounds Convoy's figure itself.
        bound: the limit of the ratio, or of the figure.
        figure: "speed" (items × work per second), or a figure that contenders report.
        at_least: True if `bound` is a lower limit, False if it is an upper limit.
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
        figures: columns of the table: the figure's name → heading with the unit.
        rounds: number of turns of each contender.
        target_s: intended length of a turn, in seconds.
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
