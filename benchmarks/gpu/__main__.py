"""Measures training on one GPU: Convoy beside timm on PyTorch and Keras' `fit`.

    python -m benchmarks.gpu [--budget_s 540] [--out DIR] [--only WORD …] [--site DIR]

Measures the cells of cells.py, the most important first, until the time is up. Each turn is saved
to DIR/gpu.json at once: an interrupted run keeps its measurements, and the same command continues
with the missing cells. Prints the tables and saves them in DIR/gpu.md. docs/gpu_benchmark.md
explains them.

Each contender is a separate process. The contenders of a cell take turns (A B A B …) if the card
has memory for both; otherwise they run one after another. A batch that does not fit is halved.
This program imports neither TensorFlow nor PyTorch, which may be in different environments.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.gpu.cards import Card, find_card
from benchmarks.gpu.cells import Cell, Setting, cells
from benchmarks.gpu.table import markdown
from benchmarks.harness.machine import ROOT, about_machine
from benchmarks.harness.pages import write
from benchmarks.harness.row import Entry
from benchmarks.harness.table import spread
from benchmarks.harness.turns import Failed, Missing, Worker, end_in_order
from convoy.utils import strict_json
from convoy.utils.machine.resources import NO_MEMORY

PAGE = ROOT / "docs" / "gpu_benchmark.md"
# Contenders share the card only if the first leaves more than half of its memory to the second, and
# if both together leave some. With less memory, libraries choose slower kernels.
HALF, FULL = 0.45, 0.9
LEAST_BATCH = 2
BEGIN_S, BEGIN_TINY_S = 300, 1500  # time limits for building and compiling; XLA is slow on CPUs
LAST_START_S = 20  # no contender is ready in less


class Clock:
    """The remaining time of a run.

    Args:
        now: clock in seconds, with any origin.
    """

    def __init__(self, budget_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._end = now, now() + budget_s

    def left(self) -> float:
        """Returns the seconds left, at least 0."""
        return max(0.0, self._end - self._now())

    def may_start(self) -> bool:
        """Returns whether a contender that starts now may still be measured in time."""
        return self.left() >= LAST_START_S


class OutOfTime(Exception):
    """The time ran out in the middle of a cell."""


@dataclass
class Run:
    """Measures cells one after another.

    Attributes:
        path: file of the results.
        results: all results so far: `card`, `machine`, `tiny`, `date`, `commit`, and `cells` by
            name. A cell has `found` (by label: `batch`, `facts`, and the figures of all `turns`),
            `notes` (why a contender is missing), and `done`.
        rounds: turns of each contender.
        target_s: intended length of a turn, in seconds.
        begin_s: time limit for building and compiling, in seconds.
        running: the contenders that are on the card now.
    """

    card: Card
    clock: Clock
    path: Path
    results: dict[str, Any]
    rounds: int
    target_s: float
    begin_s: float = BEGIN_S
    running: list[Worker] = field(default_factory=list)

    def measure(self, wanted: Sequence[Cell]) -> None:
        """Measures the cells that are not done yet, as long as there is time."""
        for cell in wanted:
            if self.results["cells"].get(cell.name, {}).get("done"):
                print(f"{cell.name}: measured before", flush=True)
            elif not self.clock.may_start():
                print(f"{cell.name}: no time left", flush=True)
            else:
                print(f"{cell.name}: {self.clock.left():.0f} s left", flush=True)
                self._cell(cell)

    def _cell(self, cell: Cell) -> None:
        record = {"found": {}, "notes": {}, "done": False}
        self.results["cells"][cell.name] = record
        try:
            for entry in cell.entries:
                if self.running and self.card.used() > HALF:
                    self._finish(record)
                self._start(entry, record)
            self._finish(record)
            record["done"] = True
        except OutOfTime:
            print("  the time is up", flush=True)
        finally:
            while self.running:
                self.running.pop().__exit__()
            self.save()

    def _start(self, entry: Entry, record: dict[str, Any]) -> None:
        """Starts a contender and measures its first turn, or records why it cannot run."""
        batch = entry.arguments["batch"]
        while True:
            now = replace(entry, arguments={**entry.arguments, "batch": batch})
            worker = Worker(now)
            try:
                limit_s = min(self.begin_s, self.clock.left())
                facts = worker.begin(self.target_s, limit_s)
            except (Missing, Failed) as error:
                worker.__exit__()
                if not self.clock.left():
                    raise OutOfTime from error
                no_memory = NO_MEMORY.search(str(error))
                if no_memory and self.running:
                    self._finish(record)  # then tries again, alone on the card
                elif no_memory and batch // 2 >= LEAST_BATCH:
                    batch //= 2
                else:
                    record["notes"][entry.label] = _short(error)
                    print(f"  {entry.label}: {_short(error)}", flush=True)
                    return
                continue
            if self.running and self.card.used() > FULL:
                worker.__exit__()
                self._finish(record)
                continue
            record["found"][entry.label] = {"batch": batch, "facts": facts, "turns": {}}
            print(f"  {entry.label}: ready after {facts['begin_s']:.0f} s", flush=True)
            self.running.append(worker)
            self._turn(worker, record)
            return

    def _turn(self, worker: Worker, record: dict[str, Any]) -> None:
        """Measures one turn and saves it at once. Ends a contender that fails, and adds a note."""
        label = worker.entry.label
        if not self.clock.left():
            raise OutOfTime
        try:
            figures = worker.turn(self.clock.left())
        except Failed as error:
            if not self.clock.left():
                raise OutOfTime from error
            record["notes"][label] = _short(error)
            self.running.remove(worker)
            worker.__exit__()
            return
        for name, value in figures.items():
            record["found"][label]["turns"].setdefault(name, []).append(value)
        self.save()

    def _finish(self, record: dict[str, Any]) -> None:
        """Measures the remaining turns of the running contenders, and ends them."""
        for number in range(1, self.rounds):
            # Every second round goes backwards, so that no contender always follows the same one.
            for worker in self.running[:: -1 if number % 2 else 1]:
                self._turn(worker, record)
        while self.running:
            worker = self.running.pop(0)
            worker.__exit__()
            speeds = record["found"][worker.entry.label]["turns"]["speed"]
            images = [speed / worker.entry.work for speed in speeds]
            print(f"  {worker.entry.label}: {spread(images)} images/s", flush=True)

    def save(self) -> None:
        """Replaces the results file atomically."""
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(strict_json.dumps(self.results, indent=1) + "\n")
        os.replace(temporary, self.path)


def _short(error: BaseException) -> str:
    if isinstance(error, Missing):
        return f"not installed: {error}"
    return " ".join(str(error).split())[:200].replace("|", "/")


def begin_results(path: Path, card: Card, tiny: bool) -> dict[str, Any]:
    """Returns the results of an earlier run, to continue it, or new results without cells.

    Raises:
        SystemExit: the file has results of another card, or of other sizes (`tiny`).
    """
    here = {"card": asdict(card), "tiny": tiny}
    if path.exists():
        known = json.loads(path.read_text())
        if {name: known[name] for name in here} == here:
            return known
        raise SystemExit(
            f"{path} has the results of {known['card']['name']}{' (--tiny)' * known['tiny']}, not"
            f" of {card.name}{' (--tiny)' * tiny}: give another folder as --out, or remove it"
        )
    commit = _output(["git", "-C", str(ROOT), "describe", "--always", "--dirty"])
    date = datetime.now().astimezone().isoformat(timespec="minutes")
    about = {"machine": about_machine(), "date": date, "commit": commit or "unknown"}
    return here | about | {"cells": {}}


def _output(command: list[str]) -> str:
    """Returns the output of a command, or "" if it cannot run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--budget_s", type=float, default=540, help="seconds for the whole run")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "build" / "gpu", help="folder of results"
    )
    parser.add_argument("--only", nargs="+", metavar="WORD", help="cells with this in their name")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    parser.add_argument("--turn_s", type=float, default=2.5, help="seconds of a turn")
    parser.add_argument("--site", type=Path, help="folder with TensorFlow's unpacked wheels")
    parser.add_argument("--torch_python", default=sys.executable, help="PyTorch's interpreter")
    parser.add_argument("--tiny", action="store_true", help="a trial: small, on any machine")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PAGE.name}")
    options = parser.parse_args()
    if shutil.which(options.torch_python) is None:
        parser.error(f"--torch_python {options.torch_python}: there is no such program")
    if options.site and not (options.site / "tensorflow").is_dir():
        parser.error(f"--site {options.site}: no folder tensorflow in it")
    return options


def main() -> None:
    """Runs the command."""
    options = _arguments()
    end_in_order()
    card = find_card()
    if card is None and not options.tiny:
        raise SystemExit(
            "nvidia-smi shows no GPU here; --tiny runs everything on the CPU, as a trial"
        )
    card = card or Card("no GPU", 0.0, "none")
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    site = options.site and options.site.resolve()
    if site:
        sys.path.append(str(site))  # for this process: PyTorch's contenders keep their own packages
    setting = Setting(out / "photographs", options.tiny, site, options.torch_python)
    every = cells(setting)
    wanted = [c for c in every if not options.only or any(word in c.name for word in options.only)]
    if not wanted:
        names = ", ".join(cell.name for cell in every)
        raise SystemExit(f"--only: no cell has such a name; there are: {names}")
    path = out / "gpu.json"
    results = begin_results(path, card, options.tiny)
    run = Run(card, Clock(options.budget_s), path, results, options.rounds, options.turn_s)
    run.begin_s = BEGIN_TINY_S if options.tiny else BEGIN_S
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the tables are still printed
    try:
        run.measure(wanted)
    finally:
        tables = markdown(results, every)
        (out / "gpu.md").write_text(tables)
        print(f"\n{tables}\n{path}", flush=True)
    if options.write:
        write("gpu", tables, PAGE)


if __name__ == "__main__":
    main()
