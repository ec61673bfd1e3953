"""Measures contenders side by side: each in a separate process, and in turns (A B A B …).

All but one are stopped (SIGSTOP), so that none of their threads spins or works ahead in another's
time. Other load on the machine affects all equally: ratios are taken turn by turn, and their median
is the result. Nothing here imports TensorFlow.
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
