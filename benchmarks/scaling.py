"""What several processes cost: weak scaling, and the share of a step that the exchange takes.

    python benchmarks/scaling.py [--arch efficientnet-b0] [--size 224] [--batch 8] [--processes 2]

Each process has one core to itself and images that are made up once. Three kinds of launch take
turns: processes that know nothing of each other; the same, but each step begins in all of them at
once, as it must where gradients are exchanged; and processes that exchange gradients over Horovod.
Weak-scaling efficiency is what the last kind trains in a second beside what the first does, and
the second kind says how much of the loss is due to going in step: to waiting for the slower one,
and to all wanting memory, or the units that two hardware threads share, in the same moment.
The step's parts are timed one after the other, so the share of the exchange holds the time that a
process waits for a slower one. Prints a table in Markdown, then every figure as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

WARMUP = 3
KINDS = ("independent", "in step", "Horovod")
GOAL = 0.95  # weak-scaling efficiency, of two processes


def train(options: argparse.Namespace, number: int) -> dict[str, list[float]]:
    """Trains in this process, on core `number`; returns the seconds of each step's three parts."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[number]})
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from utils import device, distributed

    device.prefer_onednn()
    distributed.init()
    device.setup(local_rank=number, intraop_threads=1, interop_threads=1, tf32=True)

    from dataloader.synthetic import SyntheticLoader
    from runtime.build import make_step
    from runtime.config import Config
    from runtime.state import new_state

    config = Config(arch=options.arch, image_size=options.size, train_batch_size=options.batch)
    state = new_state(config, num_classes=1000)
    step = make_step(config, state, micro_steps=1)
    loader = SyntheticLoader(
        image_size=options.size,
        batch_size=options.batch,
        num_classes=1000,
        steps_per_epoch=options.steps + WARMUP,
        seed=0,
        rank=distributed.rank(),
        world=distributed.size(),
    )
    seconds: dict[str, list[float]] = {"gradients": [], "exchange": [], "update": []}
    others = socket.create_connection(("localhost", options.meet)) if options.meet else None
    for batch in loader.batches(0):
        start = time.perf_counter()
        if others:
            others.sendall(b"?")
            others.recv(1)
        waited = time.perf_counter() - start
        places = _timed_step(step, batch)
        for name, spent in zip(seconds, places, strict=True):
            seconds[name].append(spent)
        seconds["exchange"][-1] += waited
    return {name: values[WARMUP:] for name, values in seconds.items()}


def _timed_step(step, batch) -> tuple[float, float, float]:
    """One step of `runtime.step.Step`, stopping after each part."""
    import tensorflow as tf

    start = time.perf_counter()
    gradients, weight, sums = step.forward_backward(*batch)
    sums.numpy()  # waits for all of it
    between = time.perf_counter()
    gradients, weight, _ = step.reduce(gradients, weight, tf.zeros(3))
    weight.numpy()
    after = time.perf_counter()
    done, _ = step.update(gradients, weight, tf.constant(0.01), tf.constant(0, tf.int64))
    done.numpy()
    return between - start, after - between, time.perf_counter() - after


def meeting_place(processes: int) -> int:
    """A port on which so many processes can wait for each other, again and again."""
    server = socket.create_server(("localhost", 0))

    def serve() -> None:
        guests = [server.accept()[0] for _ in range(processes)]
        while all(guest.recv(1) for guest in guests):
            for guest in guests:
                guest.sendall(b"!")

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1]


def launch(options: argparse.Namespace, kind: str) -> list[dict[str, list[float]]]:
    """Starts the processes of a kind (`KINDS`) and returns their figures."""
    with tempfile.TemporaryDirectory() as folder:
        worker = [sys.executable, __file__, "--worker", folder, "--arch", options.arch]
        worker += ["--size", str(options.size), "--batch", str(options.batch)]
        worker += ["--steps", str(options.steps)]
        if kind == "Horovod":
            runner = str(Path(sys.executable).with_name("horovodrun"))
            commands = [[runner, "--gloo", "-np", str(options.processes), *worker]]
        else:
            if kind == "in step":
                worker += ["--meet", str(meeting_place(options.processes))]
            commands = [[*worker, "--number", str(n)] for n in range(options.processes)]
        running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
        codes = [process.wait() for process in running]
        if any(codes):
            raise SystemExit(f"a process failed: exit codes {codes}")
        return [json.loads(path.read_text()) for path in sorted(Path(folder).iterdir())]


def rates(processes: list[dict[str, list[float]]], batch: int) -> list[float]:
    """Images per second of each process, by its median step."""
    return [batch / statistics.median(map(sum, zip(*p.values(), strict=True))) for p in processes]


def share(processes: list[dict[str, list[float]]], part: str) -> float:
    """The part's share of all steps' time, over all processes."""
    return sum(sum(p[part]) for p in processes) / sum(sum(map(sum, p.values())) for p in processes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="efficientnet-b0")
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--batch", type=int, default=8, help="images per process and step")
    parser.add_argument("--steps", type=int, default=20, help="timed in each launch")
    parser.add_argument("--processes", type=int, default=2, help="at most one a core")
    parser.add_argument("--rounds", type=int, default=3, help="launches of each kind")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--meet", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        number = options.number
        if number is None:
            number = int(os.environ["HOROVOD_LOCAL_RANK"])
        figures = train(options, number)
        (Path(options.worker) / f"{number}.json").write_text(json.dumps(figures))
        return
    load = os.getloadavg()[0]
    found: dict[str, list] = {kind: [] for kind in KINDS}
    for _ in range(options.rounds):
        for kind in KINDS:
            found[kind].append(launch(options, kind))
    print(report(options, found, load))


def report(options: argparse.Namespace, found: dict[bool, list], load: float) -> str:
    """The table and the figures."""
    speeds = {
        kind: [sum(rates(processes, options.batch)) for processes in found[kind]] for kind in KINDS
    }
    middles = {kind: statistics.median(values) for kind, values in speeds.items()}
    efficiency = middles["Horovod"] / middles["independent"]
    exchange = [share(processes, "exchange") for processes in found["Horovod"]]
    lines = [
        f"{options.arch}, {options.size} px, {options.batch} images a step on each of"
        f" {options.processes} processes, one core each; load before {load:.2f}",
        "",
        "| launch | images/s of all, median of launches (least–greatest) |",
        "|---|---|",
    ]
    for kind, values in speeds.items():
        lines.append(f"| {kind} | {middles[kind]:.2f} ({min(values):.2f}–{max(values):.2f}) |")
    lines += [
        "",
        f"- weak-scaling efficiency: **{efficiency:.3f}**, goal ≥ {GOAL}:"
        f" {'met' if efficiency >= GOAL else 'missed'}; of processes in step:"
        f" {middles['Horovod'] / middles['in step']:.3f}",
        f"- share of the step that the exchange takes: {statistics.median(exchange):.3f}"
        f" ({min(exchange):.3f}–{max(exchange):.3f})",
        "",
        json.dumps(found),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
