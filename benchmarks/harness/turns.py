"""Measures contenders side by side: each in a separate process, and in turns (A B A B …).

All but one are stopped (SIGSTOP), so that none of their threads spins or works ahead in another's
time. Other load on the machine affects all equally: ratios are taken turn by turn, and their median
is the result. Nothing here imports TensorFlow.
"""

from __future__ import annotations

import json
import os
import platform
import select
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


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


@dataclass(frozen=True)
class Program:
    """A benchmark with its own command: it prints its table, and in the last line its figures as
    JSON.
    """

    name: str
    title: str
    module: str

    def run(self) -> tuple[str, dict[str, Any]]:
        """Returns the table, and the figures to store.

        Raises:
            subprocess.CalledProcessError: it failed; it has printed the reason.
        """
        command, load = [sys.executable, "-m", self.module], os.getloadavg()[0]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        table, _, figures = done.stdout.rstrip().rpartition("\n")
        machine = about_machine() | {"load before": round(load, 2)}
        found = {"row": self.name, "machine": machine, "figures": json.loads(figures)}
        return table.strip() + "\n", found


class Missing(Exception):
    """A peer's package is not installed."""


class Failed(SystemExit):
    """A contender ended, or did not answer in time; the text says which one, and why if known."""


class Worker:
    """A contender's process; a context manager."""

    def __init__(self, entry: Entry) -> None:
        self.entry, self.count = entry, 1
        command = [
            entry.python,
            "-m",
            "benchmarks.harness.contender",
            f"benchmarks.contenders.{entry.maker}",
        ]
        self._process = subprocess.Popen(
            [*command, json.dumps(entry.arguments)],
            cwd=ROOT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **entry.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that signals reach its children too
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()

    def begin(self, target_s: float, limit_s: float | None = None) -> dict[str, Any]:
        """Waits until it is built and warmed up, chooses the length of its turns, and stops it.

        Args:
            limit_s: time limit for an answer; here and below, None means no limit.

        Raises:
            Missing: it needs a package that is not installed.
            Failed: it ended, or took longer.
        """
        ready = self._answer(limit_s)
        if "missing" in ready:
            raise Missing(ready["missing"])
        self.items = ready["items"]
        self.turn(limit_s)
        # Twice as long each time: prefetched results make its first iterations too fast.
        while (seconds := self.turn(limit_s)["seconds"]) < target_s / 4:
            self.count *= 2
        self.count = max(1, round(self.count * target_s / seconds))
        return ready["facts"] | {"begin_s": ready["begin_s"], "iterations in a turn": self.count}

    def turn(self, limit_s: float | None = None) -> dict[str, float]:
        """Returns the figures of one turn: "speed" is items × work per second, "ms" the time per
        iteration, "cpu_ms" the CPU time per item, including child processes, and "core_speed" the
        items per second of CPU time.

        Raises:
            Failed: as in `begin`.
        """
        self._signal(signal.SIGCONT)
        with suppress(BrokenPipeError):  # then it has ended, and there is no answer
            self._process.stdin.write(json.dumps({"turn": self.count}) + "\n")
            self._process.stdin.flush()
        found = self._answer(limit_s)
        self._signal(signal.SIGSTOP)
        items = self.count * self.items
        found["speed"] = items * self.entry.work / found["seconds"]
        found["ms"] = 1e3 * found["seconds"] / self.count
        found["cpu_ms"] = 1e3 * found["cpu_s"] / items
        found["core_speed"] = items / max(found.pop("cpu_s"), 1e-9)
        return found

    def _answer(self, limit_s: float | None) -> dict[str, Any]:
        label, stdout = self.entry.label, self._process.stdout
        if not select.select([stdout], [], [], limit_s)[0]:  # each answer is one line
            raise Failed(f"{label}: no answer in {limit_s:.0f} s")
        line = stdout.readline()
        if not line:
            raise Failed(f"{label}: ended with code {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(f"{label}: {answer['error']}")
        return answer

    def _signal(self, number: int) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)


def end_in_order() -> None:
    """Makes SIGTERM end this program like an exception, so that contenders and their children end
    with it.
    """
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def measure(row: Row) -> dict[str, Any]:
    """Runs a row. Returns its turns, by label and figure, and the contenders' facts about
    themselves; labels with missing packages are named and left out.
    """
    turns: dict[str, dict[str, list[float]]] = {}
    facts, missing, running = {}, {}, []
    before = os.getloadavg()[0]
    try:
        for entry in row.entries:  # one after another: building and compiling use all cores
            running.append(Worker(entry))
            try:
                facts[entry.label] = running[-1].begin(row.target_s)
            except Missing as error:
                missing[entry.label] = str(error)
                running.pop().__exit__()
        for number in range(row.rounds):
            # Every other round runs backwards, so that none always follows the same one.
            for worker in running if number % 2 == 0 else running[::-1]:
                for name, value in worker.turn().items():
                    turns.setdefault(worker.entry.label, {}).setdefault(name, []).append(value)
    finally:
        for worker in running:
            worker.__exit__()
    machine = about_machine() | {"load before": round(before, 2)}
    return {
        "row": row.name,
        "machine": machine,
        "turns": turns,
        "facts": facts,
        "missing": missing,
    }


def ratios(
    found: dict[str, Any], ours: str, peer: str | None, figure: str = "speed"
) -> list[float]:
    """Returns `ours` ÷ `peer` of a figure for each round; empty if one of them did not take
    part.
    """
    if not {ours, peer or ours} <= set(found["turns"]):
        return []
    if peer is None:
        return found["turns"][ours][figure]
    pairs = zip(found["turns"][ours][figure], found["turns"][peer][figure], strict=True)
    return [a / b for a, b in pairs]


def settled(goal: Goal, found: dict[str, Any]) -> Goal:
    """Returns the goal with one label in place of several: among those that took part, the one with
    the best median.
    """

    def best(labels: str | tuple[str, ...] | None) -> str | None:
        if labels is None or isinstance(labels, str):
            return labels
        turns = found["turns"]
        medians = {
            label: statistics.median(turns[label][goal.figure])
            for label in labels
            if label in turns
        }
        choose = max if goal.at_least else min
        return choose(medians, key=medians.get) if medians else labels[0]

    return replace(goal, ours=best(goal.ours), peer=best(goal.peer))


def spread(values: Sequence[float]) -> str:
    """Formats the median, with minimum and maximum in brackets, to three digits."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{_short(middle)} ({_short(low)}–{_short(high)})"


def _short(value: float) -> str:
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{digits}f}"


def markdown(row: Row, found: dict[str, Any]) -> str:
    """Formats the row as a table, its goals as a list, and its note."""
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
    for wanted in row.goals:
        goal = settled(wanted, found)
        values = ratios(found, goal.ours, goal.peer, goal.figure)
        if values:
            best = "" if goal == wanted else ", the best of each"
            verdicts.append(f"- {_verdict(goal, values, best)}")
    parts = ("\n".join(lines), "\n".join(verdicts), row.note)
    return "\n\n".join(part for part in parts if part) + "\n"


def _per_item(entry: Entry, figure: str, values: list[float]) -> list[float]:
    """Converts speeds from work to items: they are shown in items, and compared in work."""
    return [value / entry.work for value in values] if figure == "speed" else values


def _verdict(goal: Goal, values: list[float], best: str = "") -> str:
    middle = statistics.median(values)
    met = middle >= goal.bound if goal.at_least else middle <= goal.bound
    name = "" if goal.figure == "speed" else f" ({goal.figure})"
    who = goal.ours if goal.peer is None else f"{goal.ours} ÷ {goal.peer}"
    return (
        f"{who}{name}{best}: **{spread(values)}**, goal"
        f" {'≥' if goal.at_least else '≤'} {goal.bound:g}: {'met' if met else 'missed'}"
    )


def measured_on(machine: dict[str, Any]) -> str:
    """Returns a line of Markdown for below a table."""
    return f"*{machine['cpu']}, {machine['cores']} cores, {machine['date']}*\n"


def about_machine() -> dict[str, Any]:
    """Returns the facts on which figures depend."""
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    model = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")
    if any("amx_bf16" in line for line in lines):
        model += " with AMX"  # cloud machines tell no more of the name
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages / 2**30, 1),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }
