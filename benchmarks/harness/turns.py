"""Measures contenders in turns (A B A B …), each in a separate process.

During a turn, all other contenders are stopped (SIGSTOP), so that their threads neither spin nor
prefetch. Ratios are computed turn by turn and the result is their median, because other load on the
machine then affects both contenders equally. This module does not import TensorFlow.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any

from benchmarks.harness.machine import ROOT, about_machine
from benchmarks.harness.row import Entry, Row
from convoy.utils.optional import known


class Missing(Exception):
    """A peer's package is not installed."""


class Failed(SystemExit):
    """A contender ended or exceeded its time limit. The message has its label and the reason."""


class Worker:
    """The process of a contender, from the benchmark's side. It is a context manager."""

    def __init__(self, entry: Entry) -> None:
        self.entry, self.count = entry, 1
        command = [
            entry.python,
            "-m",
            "benchmarks.harness.contender",
            f"benchmarks.contenders.{entry.maker}",
        ]
        # Python keeps compiled modules, as it does for users, unless this variable forbids it.
        inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        self._process = subprocess.Popen(
            [*command, json.dumps(entry.arguments)],
            cwd=ROOT,
            env={**inherited, "TF_CPP_MIN_LOG_LEVEL": "3", **entry.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that signals reach its children too
        )
        self._stdin, self._stdout = known(self._process.stdin), known(self._process.stdout)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()
        with suppress(BrokenPipeError):
            self._stdin.close()
        self._stdout.close()

    def begin(self, target_s: float, limit_s: float | None = None) -> dict[str, Any]:
        """Waits until the contender is built and warmed up, and chooses the length of its turns.

        Args:
            target_s: intended length of a turn, in seconds.
            limit_s: time limit for each answer, in seconds; None means no limit.

        Returns:
            The contender's facts, the seconds it took to build, and the iterations in a turn.

        Raises:
            Missing: the contender needs a package that is not installed.
            Failed: the contender ended, or exceeded the time limit.
        """
        ready = self._answer(limit_s)
        if "missing" in ready:
            raise Missing(ready["missing"])
        self.items = ready["items"]
        self.turn(limit_s)
        # Doubles until a turn is long enough: prefetched results speed up the first iterations.
        while (seconds := self.turn(limit_s)["seconds"]) < target_s / 4:
            self.count *= 2
        self.count = max(1, round(self.count * target_s / seconds))
        return ready["facts"] | {"begin_s": ready["begin_s"], "iterations in a turn": self.count}

    def turn(self, limit_s: float | None = None) -> dict[str, float]:
        """Lets the contender run for one turn, and returns its figures.

        They are "speed" (items × work per second), "ms" (time per iteration), "cpu_ms" (CPU time
        per item, including child processes), "core_speed" (items per second of CPU time), and those
        that the contender adds.

        Raises:
            Failed: as in `begin`.
        """
        self._signal(signal.SIGCONT)
        with suppress(BrokenPipeError):  # the process has ended: _answer reports it
            self._stdin.write(json.dumps({"turn": self.count}) + "\n")
            self._stdin.flush()
        found = self._answer(limit_s)
        self._signal(signal.SIGSTOP)
        items = self.count * self.items
        found["speed"] = items * self.entry.work / found["seconds"]
        found["ms"] = 1e3 * found["seconds"] / self.count
        found["cpu_ms"] = 1e3 * found["cpu_s"] / items
        found["core_speed"] = items / max(found.pop("cpu_s"), 1e-9)
        return found

    def _answer(self, limit_s: float | None) -> dict[str, Any]:
        label = self.entry.label
        if not select.select([self._stdout], [], [], limit_s)[0]:  # each answer is one line
            raise Failed(f"{label}: no answer in {limit_s:.0f} s")
        line = self._stdout.readline()
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
    """Makes SIGTERM raise SystemExit, so that contenders and their children are ended too."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def measure(row: Row) -> dict[str, Any]:
    """Measures a row.

    Returns:
        `turns` by label and figure, `facts` that contenders report about themselves, and `missing`:
        for each contender that cannot run, the package that is not installed.
    """
    turns: dict[str, dict[str, list[float]]] = {}
    facts, missing, running = {}, {}, []
    before = os.getloadavg()[0]
    try:
        for entry in row.entries:  # not in parallel: building and compiling use all cores
            running.append(Worker(entry))
            try:
                facts[entry.label] = running[-1].begin(row.target_s)
            except Missing as error:
                missing[entry.label] = str(error)
                running.pop().__exit__()
        for number in range(row.rounds):
            # Every second round goes backwards, so that no contender always follows the same one.
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
