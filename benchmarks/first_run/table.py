"""Makes the table of docs/first_run.md from the results of the trainings."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import pages
from benchmarks.harness.machine import ROOT, measured_on

PAGE = ROOT / "docs" / "first_run.md"
COLUMNS = {
    "earlier": "plain command, earlier rules",
    "plain": "plain command",
    "search": "best of the search",
    "keras": "Keras' script",
    "timm": "timm's defaults",
}


def markdown(found: Sequence[dict], names: Sequence[str], machine: dict) -> str:
    """Returns the table, with a row for each data set and a column for each contestant.

    A cell has mean and range of the accuracy over the seeds, and the seeds. The cell of the search
    is for the flags with the best mean, among those that ran with the most seeds.
    """
    lines = ["| data | " + " | ".join(COLUMNS.values()) + " |", "|---" * (1 + len(COLUMNS)) + "|"]
    for name in names:
        here = [each for each in found if each["data"] == name]
        cells = [_cell([e for e in here if e["contestant"] == one]) for one in COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_searched(found, names), "", measured_on(machine)]) + "\n"


def best(trials: Sequence[dict]) -> list[dict]:
    """Returns the trials of the best flags. More seeds come first: one good trial may be luck."""
    by_flags: dict[str, list[dict]] = {}
    for each in trials:
        by_flags.setdefault(str(sorted(each["flags"].items())), []).append(each)
    return max(by_flags.values(), key=lambda same: (len(same), _mean(same)), default=[])


def _mean(trials: Sequence[dict]) -> float:
    return statistics.fmean(each["top1"] for each in trials)


def _cell(trials: Sequence[dict]) -> str:
    same = best(trials)
    if not same:
        return "–"
    tops = [each["top1"] for each in same]
    tried = len({str(each["flags"]) for each in trials})
    of = f"; trials: {tried}" if same[0]["contestant"] == "search" else ""
    seeds = ", ".join(str(each["seed"]) for each in same)
    spread = f" ({min(tops):.1f} to {max(tops):.1f})" if len(tops) > 1 else ""
    return f"{_mean(same):.1f}{spread}; seed {seeds}{of}"


def _searched(found: Sequence[dict], names: Sequence[str]) -> list[str]:
    lines = []
    for name in names:
        tried = [e for e in found if e["data"] == name and e["contestant"] == "search"]
        if same := best(tried):
            flags = " ".join(f"--{flag} {value}" for flag, value in same[0]["flags"].items())
            lines.append(f"- {name}: `{flags}`")
    return ["The flags of the best:", "", *lines] if lines else []


def write(text: str, page: Path = PAGE) -> None:
    pages.write("first run", text, page)
