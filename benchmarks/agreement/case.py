"""Compares the answers of several programs to one input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

Program: TypeAlias = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Refused:
    """A program's answer if it does not take the input."""

    reason: str


@dataclass
class Case:
    """One input, and what programs make of it.

    Attributes:
        what: the input, and what is asked.
        answers: by program.
        tolerance: answers that are no further apart agree.
    """

    what: str
    answers: dict[str, np.ndarray | Refused]
    tolerance: float = 0.0
    _groups: list[list[str]] = field(default_factory=list)

    def groups(self) -> list[list[str]]:
        """Returns the programs in groups that agree, the largest first; those that refuse last."""
        if not self._groups:
            for name, answer in self.answers.items():
                for group in self._groups:
                    if self._agree(answer, self.answers[group[0]]):
                        group.append(name)
                        break
                else:
                    self._groups.append([name])
            self._groups.sort(key=lambda g: (isinstance(self.answers[g[0]], Refused), -len(g)))
        return self._groups

    @property
    def differs(self) -> bool:
        """Returns whether programs that take the input disagree, or only some take it."""
        return len(self.groups()) > 1

    def _agree(self, a: np.ndarray | Refused, b: np.ndarray | Refused) -> bool:
        if isinstance(a, Refused) or isinstance(b, Refused):
            return isinstance(a, Refused) and isinstance(b, Refused)
        return a.shape == b.shape and _gap(a, b)[0] <= self.tolerance

    def row(self) -> tuple[str, str, str]:
        """Returns the cells of a table: the input, who agrees, and how far the others are."""
        return self.what, self._who(), self._how_far()

    def _who(self) -> str:
        parts = []
        for group in self.groups():
            first = self.answers[group[0]]
            text = " = ".join(group)
            if isinstance(first, Refused):
                text += f": {first.reason}"
            elif first.size <= 4:
                text += f": {', '.join(f'{value:.4g}' for value in first.ravel())}"
            elif any(first.shape != other.shape for other in self._taken()):
                text += f": {' × '.join(str(side) for side in first.shape[:2])}"
            parts.append(text)
        return "; ".join(parts)

    def _taken(self) -> list[np.ndarray]:
        firsts = [self.answers[group[0]] for group in self.groups()]
        return [first for first in firsts if isinstance(first, np.ndarray)]

    def _how_far(self) -> str:
        """Returns the largest and the mean difference between two groups of the same shape."""
        answers = self._taken()
        pairs = ((a, b) for i, a in enumerate(answers) for b in answers[:i])
        gaps = [_gap(a, b) for a, b in pairs if a.shape == b.shape]
        if not gaps:
            return ""
        most, mean, share = max(gaps)
        if answers[0].size <= 4:
            return ""
        return f"up to {_short(most)}, {_short(mean)} on average, {share:.0%} of the values"


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.2g}"


def _gap(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """Returns the largest and mean difference, and the share of values that differ."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    gap = np.where(np.isnan(a) & np.isnan(b), 0.0, np.abs(a - b))
    gap = np.where(np.isnan(gap), np.inf, gap)
    gap = np.where((a == b) & np.isinf(a), 0.0, gap)
    return float(gap.max(initial=0)), float(gap.mean()), float((gap > 0).mean())


def ask(
    what: str, programs: dict[str, Program], tolerance: float = 0.0, may_refuse: bool = False
) -> Case:
    """Asks each program.

    Args:
        what: see `Case`.
        programs: the programs by name.
        tolerance: see `Case`.
        may_refuse: an error becomes `Refused`, with the error's kind; otherwise it is raised.
    """
    answers: dict[str, np.ndarray | Refused] = {}
    for name, program in programs.items():
        try:
            answers[name] = np.asarray(program())
        except Exception as error:
            if not may_refuse:
                raise
            answers[name] = Refused(f"refused ({type(error).__name__})")
    return Case(what, answers, tolerance)


def table(cases: list[Case]) -> str:
    """Returns a table in Markdown, with the cases first in which programs differ."""
    lines = ["| input | who agrees | the farthest apart |", "|---|---|---|"]
    ordered = sorted(cases, key=lambda case: not case.differs)
    lines += [f"| {' | '.join(case.row())} |" for case in ordered]
    return "\n".join(lines) + "\n"
