"""Formats a row's results as Markdown: the table, and which goals are met."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.harness.row import Entry, Goal, Row


def ratios(
    found: dict[str, Any], ours: str, peer: str | None, figure: str = "speed"
) -> list[float]:
    """Returns `ours` ÷ `peer` of a figure for each round.

    Returns the figure itself if `peer` is None, and [] if one of them was not measured.
    """
    if not {ours, peer or ours} <= set(found["turns"]):
        return []
    if peer is None:
        return found["turns"][ours][figure]
    pairs = zip(found["turns"][ours][figure], found["turns"][peer][figure], strict=True)
    return [a / b for a, b in pairs]


def compared(goal: Goal, found: dict[str, Any]) -> tuple[str, str | None]:
    """Returns our label and the peer's: of several, the measured label with the best median."""

    def best(labels: str | tuple[str, ...]) -> str:
        if isinstance(labels, str):
            return labels
        turns = found["turns"]
        medians = {
            label: statistics.median(turns[label][goal.figure])
            for label in labels
            if label in turns
        }
        choose = max if goal.at_least else min
        return choose(medians, key=medians.__getitem__) if medians else labels[0]

    return best(goal.ours), None if goal.peer is None else best(goal.peer)


def spread(values: Sequence[float]) -> str:
    """Formats median (minimum–maximum), each with three significant digits."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{_short(middle)} ({_short(low)}–{_short(high)})"


def _short(value: float) -> str:
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{digits}f}"


def markdown(row: Row, found: dict[str, Any]) -> str:
    """Returns the row's results as Markdown: a table, the goals as a list, and the note."""
    heads = list(row.figures.values())
    first = row.entries[0].label
    lines = [f"| | {' | '.join(heads)} | × {first} |", "|---" * (len(heads) + 2) + "|"]
    main = next(iter(row.figures))
    for entry in row.entries:
        turns = found["turns"].get(entry.label)
        if turns is None:
            lines.append(f"| {entry.label} | {'not installed |' * len(heads)} |")
            continue
        cells = [spread(_per_item(entry, name, turns[name])) for name in row.figures]
        ratio = f"{statistics.median(ratios(found, entry.label, first, main)):.2f}"
        lines.append(f"| {entry.label} | {' | '.join(cells)} | {ratio} |")
    verdicts = []
    for goal in row.goals:
        ours, peer = compared(goal, found)
        values = ratios(found, ours, peer, goal.figure)
        if values:
            who = ours if peer is None else f"{ours} ÷ {peer}"
            best = "" if (ours, peer) == (goal.ours, goal.peer) else ", the best of each"
            verdicts.append(f"- {_verdict(goal, values, who, best)}")
    parts = ("\n".join(lines), "\n".join(verdicts), row.note)
    return "\n\n".join(part for part in parts if part) + "\n"


def _per_item(entry: Entry, figure: str, values: list[float]) -> list[float]:
    """Converts speeds from work to items per second. Tables show items; ratios compare work."""
    return [value / entry.work for value in values] if figure == "speed" else values


def _verdict(goal: Goal, values: list[float], who: str, best: str) -> str:
    middle = statistics.median(values)
    met = middle >= goal.bound if goal.at_least else middle <= goal.bound
    name = "" if goal.figure == "speed" else f" ({goal.figure})"
    return (
        f"{who}{name}{best}: **{spread(values)}**, goal"
        f" {'≥' if goal.at_least else '≤'} {goal.bound:g}: {'met' if met else 'missed'}"
    )
