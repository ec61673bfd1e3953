"""Measures weak scaling, and the share of a step that the exchange of gradients takes.

    python -m benchmarks.scaling.weak_scaling [--arch efficientnet-b0] [--size 224] [--batch 8]
        [--processes 2]

Each process has its own core, and synthetic images that are made once. Four kinds of jobs take
turns of a few steps, and are stopped (SIGSTOP) during the others' turns:

- "independent": processes without communication;
- "in step": the same, but all begin each step together, as they must to exchange gradients;
- "Horovod": processes that exchange gradients;
- "Horovod as released": the same without scripts/horovod/1-idle-cycle-time.patch.

Weak-scaling efficiency is the speed of "Horovod" over that of "independent", turn by turn. "In
step" shows how much of the loss comes from synchronisation: from waiting for the slower process,
and from using memory, or units that hardware threads share, at the same time.

The parts of a step are timed one after another, so the exchange includes waiting for the slower
process. Prints a table in Markdown, then all measurements as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from benchmarks.harness.machine import ROOT
from benchmarks.harness.table import spread
from benchmarks.harness.turns import end_in_order
from convoy.utils import strict_json

if TYPE_CHECKING:
    from convoy.dataloader.data_loader import Batch
    from convoy.runtime.train.step import Step

WARMUP = 3
_PATIENT = {"HOROVOD_GLOO_TIMEOUT_SECONDS": "3600"}  # a stopped process has not failed
# Environment variables of the processes, for each kind.
KINDS = {
    "independent": {},
    "in step": {},
    "Horovod": _PATIENT,
    "Horovod as released": {**_PATIENT, "HOROVOD_IDLE_CYCLE_TIME": "0"},
}
GOAL = 0.95  # weak-scaling efficiency, of two processes

Parts = dict[str, list[float]]  # part of a step → its seconds in each step
Turn = list[Parts]  # one item per process


# ---- a process that trains -----------------------------------------------------------------------


def train(options: argparse.Namespace) -> None:
    """Trains in this process, on its own core: the number of steps of each request."""
    number = options.number
    if number is None:
        number = int(os.environ["HOROVOD_LOCAL_RANK"])
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[number]})
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from convoy.utils.distributed import ranks
    from convoy.utils.machine import device

    device.prefer_onednn()
    ranks.init()
    device.setup(local_rank=number, intraop_threads=1, interop_threads=1, tf32=True)

    from convoy.dataloader.synthetic import SyntheticLoader
    from convoy.runtime.settings.config import Config
    from convoy.runtime.train.new_state import new_state
    from convoy.runtime.train.objective import make_step

    config = Config(arch=options.arch, image_size=options.size, train_batch_size=options.batch)
    state = new_state(config, num_classes=1000)
    step = make_step(config, state, micro_steps=1)
    loader = SyntheticLoader(
        image_size=options.size,
        batch_size=options.batch,
        num_classes=1000,
        steps_per_epoch=sys.maxsize,
        seed=0,
        rank=ranks.rank(),
        world=ranks.size(),
    )
    batches = iter(loader.batches(0))
    others = socket.create_connection(("localhost", options.meet)) if options.meet else None

    def steps(count: int) -> Parts:
        seconds: Parts = {"gradients": [], "exchange": [], "update": []}
        for _ in range(count):
            batch = next(batches)
            start = time.perf_counter()
            if others:
                others.sendall(b"?")
                others.recv(1)
            waited = time.perf_counter() - start
            for name, spent in zip(seconds, _timed_step(step, batch), strict=True):
                seconds[name].append(spent)
            seconds["exchange"][-1] += waited
        return seconds

    steps(WARMUP)
    with socket.create_connection(("localhost", options.conductor)).makefile("rw") as conductor:
        print(json.dumps([number, os.getpid()]), file=conductor, flush=True)
        for count in conductor:
            print(json.dumps(steps(int(count))), file=conductor, flush=True)


def _timed_step(step: Step, batch: Batch) -> tuple[float, float, float]:
    """Runs one step of `runtime.train.step.Step`. Returns the seconds of each part."""
    import tensorflow as tf

    start = time.perf_counter()
    gradients, weight, sums = step.forward_backward(*batch)
    sums.numpy()  # waits for the results
    between = time.perf_counter()
    gradients, weight, _ = step.reduce(gradients, weight, tf.zeros(3))
    weight.numpy()
    after = time.perf_counter()
    done, _ = step.update(gradients, weight, tf.constant(0.01), tf.constant(0, tf.int64))
    done.numpy()
    return between - start, after - between, time.perf_counter() - after


# ---- starting and stopping them ------------------------------------------------------------------


def meeting_place(processes: int) -> int:
    """Returns a port at which `processes` processes can wait for each other, repeatedly."""
    server = socket.create_server(("localhost", 0))

    def serve() -> None:
        guests = [server.accept()[0] for _ in range(processes)]
        while all(guest.recv(1) for guest in guests):
            for guest in guests:
                guest.sendall(b"!")

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1]


class Job:
    """The processes of one kind. They are stopped outside their turns. It is a context manager."""

    def __init__(self, kind: str, options: argparse.Namespace) -> None:
        self._kind, self._options = kind, options
        self._launched: list[subprocess.Popen] = []
        self._members: list[tuple[int, int, TextIO]] = []  # number, process, connection

    def __enter__(self) -> Job:
        """Starts the processes, and waits until all have trained their first steps.

        Raises:
            SystemExit: a process ended before that.
        """
        try:
            self._begin()
        except BaseException as error:
            self.__exit__(type(error))
            raise
        self._members.sort(key=lambda member: member[0])
        self._signal(signal.SIGSTOP)
        return self

    def __exit__(self, error: type[BaseException] | None, *about_it: object) -> None:
        """Lets the processes end; kills them after an error."""
        self._signal(signal.SIGKILL if error else signal.SIGCONT)
        for _, _, connection in self._members:
            connection.close()
        for process in self._launched:
            if error:
                process.terminate()
            process.wait()

    def turn(self, steps: int) -> Turn:
        """Runs `steps` + 1 steps, and returns the times of all but the first.

        Raises:
            SystemExit: a process ended.
        """
        self._signal(signal.SIGCONT)
        for _, _, connection in self._members:
            print(steps + 1, file=connection, flush=True)
        answers = [connection.readline() for _, _, connection in self._members]
        self._signal(signal.SIGSTOP)
        if not all(answers):
            raise SystemExit(f"{self._kind}: a process ended in its turn")
        return [
            {name: seconds[1:] for name, seconds in json.loads(answer).items()}
            for answer in answers
        ]

    def _begin(self) -> None:
        with socket.create_server(("localhost", 0)) as server:
            server.settimeout(1)
            self._launch(server.getsockname()[1])
            while len(self._members) < self._options.processes:
                with suppress(TimeoutError):
                    connection = server.accept()[0].makefile("rw")
                    number, process = json.loads(connection.readline())
                    self._members.append((number, process, connection))
                if any(process.poll() is not None for process in self._launched):
                    raise SystemExit(f"{self._kind}: a process ended before its first turn")

    def _launch(self, conductor: int) -> None:
        options = self._options
        command = [sys.executable, "-m", "benchmarks.scaling.weak_scaling"]
        command += ["--conductor", str(conductor), "--arch", options.arch]
        command += ["--size", str(options.size), "--batch", str(options.batch)]
        if self._kind.startswith("Horovod"):
            runner = str(Path(sys.executable).with_name("horovodrun"))
            commands = [[runner, "--gloo", "-np", str(options.processes), *command]]
        else:
            if self._kind == "in step":
                command += ["--meet", str(meeting_place(options.processes))]
            commands = [[*command, "--number", str(n)] for n in range(options.processes)]
        environment = os.environ | KINDS[self._kind]
        self._launched = [
            subprocess.Popen(each, cwd=ROOT, stdout=subprocess.DEVNULL, env=environment)
            for each in commands
        ]

    def _signal(self, number: int) -> None:
        for _, process, _ in self._members:
            with suppress(ProcessLookupError):
                os.kill(process, number)


# ---- results -------------------------------------------------------------------------------------


def rate(turn: Turn, batch: int) -> float:
    """Returns the images per second of all processes together, from the median step of each."""
    return sum(batch / statistics.median(map(sum, zip(*p.values(), strict=True))) for p in turn)


def share(turn: Turn, part: str) -> float:
    """Returns the share of a part in the time of all steps of all processes."""
    return sum(sum(p[part]) for p in turn) / sum(sum(map(sum, p.values())) for p in turn)


def report(options: argparse.Namespace, found: dict[str, list[Turn]], load: float) -> str:
    """Returns the table, and the measurements as JSON in the last line."""
    rates = {kind: [rate(turn, options.batch) for turn in found[kind]] for kind in KINDS}

    def beside(kind: str, other: str) -> list[float]:
        return [a / b for a, b in zip(rates[kind], rates[other], strict=True)]

    def milliseconds(kind: str, part: str) -> str:
        return spread([1e3 * statistics.median(p[part]) for turn in found[kind] for p in turn])

    efficiency = beside("Horovod", "independent")
    met = statistics.median(efficiency) >= GOAL
    lines = [
        f"{options.arch}, {options.size} px, {options.batch} images a step on each of"
        f" {options.processes} processes, one core each; load before {load:.2f}",
        "",
        "| | images/s of all | × independent | gradients, ms | exchange, ms |",
        "|---|---|---|---|---|",
    ]
    for kind in KINDS:
        cells = [spread(rates[kind]), spread(beside(kind, "independent"))]
        cells += [milliseconds(kind, part) for part in ("gradients", "exchange")]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    lines += [
        "",
        f"- weak-scaling efficiency: **{spread(efficiency)}**, goal ≥ {GOAL}:"
        f" {'met' if met else 'missed'}; beside processes in step:"
        f" {spread(beside('Horovod', 'in step'))}",
        "- share of the step that the exchange takes:"
        f" {spread([share(turn, 'exchange') for turn in found['Horovod']])}",
        "",
        strict_json.dumps(found),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="efficientnet-b0")
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--batch", type=int, default=8, help="images per process and step")
    parser.add_argument("--steps", type=int, default=4, help="timed in each turn")
    parser.add_argument("--processes", type=int, default=2, help="at most one a core")
    parser.add_argument("--rounds", type=int, default=13, help="turns of each kind")
    parser.add_argument("--conductor", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--meet", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.conductor:
        train(options)
        return
    load = os.getloadavg()[0]
    end_in_order()
    found: dict[str, list[Turn]] = {kind: [] for kind in KINDS}
    with ExitStack() as stack:
        jobs = {kind: stack.enter_context(Job(kind, options)) for kind in KINDS}
        for number in range(options.rounds):
            # Every second round goes backwards, so that no job always follows the same one.
            for kind in list(KINDS)[:: 1 if number % 2 == 0 else -1]:
                found[kind].append(jobs[kind].turn(options.steps))
    print(report(options, found, load))


if __name__ == "__main__":
    main()
