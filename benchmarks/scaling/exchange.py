"""Measures the time to average gradients over processes on this machine, without a model.

    python -m benchmarks.scaling.exchange [--processes 2] [--repeats 30]

Processes with one core each average one float32 tensor of 4 kB to 64 MB, and then tensors in the
shapes of EfficientNet-B0's gradients, over Horovod as in training. They synchronise before each
repetition. A repetition takes as long as its slowest process. Prints the medians as a Markdown
table, latency α and bandwidth β fitted to the single tensors (seconds = α + 2(n−1)/n · bytes / β),
the time that they predict for B0's gradients, and then everything as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness.machine import ROOT
from convoy.utils import strict_json

SIZES = [2**n for n in range(12, 27, 2)]  # bytes
WARMUP = 3
MODEL = "efficientnet-b0"


def measure(repeats: int) -> dict[str, list[float]]:
    """Returns the seconds of each repetition in this process, by the name of what is exchanged."""
    number = int(os.environ["HOROVOD_LOCAL_RANK"])
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[number]})
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    from convoy.model import build_model
    from convoy.utils.distributed import ranks
    from convoy.utils.machine import device

    ranks.init()
    device.setup(local_rank=number, intraop_threads=1, interop_threads=1, tf32=True)
    cases = {str(size): [tf.zeros(size // 4)] for size in SIZES}
    cases[MODEL] = [tf.zeros(v.shape) for v in build_model(MODEL).trainable_variables]
    seconds: dict[str, list[float]] = {}
    for name, tensors in cases.items():
        exchange = tf.function(lambda *given: ranks.reduce_mean(given)[0])
        for _ in range(WARMUP + repeats):
            ranks.mean_over_ranks(tf.zeros(1), "meeting").numpy()
            start = time.perf_counter()
            exchange(*tensors)[-1].numpy()
            seconds.setdefault(name, []).append(time.perf_counter() - start)
    return {name: values[WARMUP:] for name, values in seconds.items()}


def medians(processes: list[dict[str, list[float]]]) -> dict[str, float]:
    """Returns the median over repetitions of the slowest process's seconds."""
    return {
        name: statistics.median(map(max, zip(*(p[name] for p in processes), strict=True)))
        for name in processes[0]
    }


def alpha_beta(seconds: dict[str, float], processes: int) -> tuple[float, float]:
    """Fits latency in seconds and bandwidth in bytes/s by least squares of relative errors."""
    import numpy as np

    sizes = np.array(SIZES, float)
    times = np.array([seconds[str(size)] for size in SIZES])
    sent = 2 * (processes - 1) / processes * sizes
    alpha, inverse = np.linalg.lstsq(
        np.stack([1 / times, sent / times], 1), np.ones_like(times), rcond=None
    )[0]
    return float(alpha), float(1 / inverse)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2, help="at most one a core")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        figures = measure(options.repeats)
        Path(options.worker, os.environ["HOROVOD_RANK"] + ".json").write_text(json.dumps(figures))
        return
    load, count = os.getloadavg()[0], options.processes
    with tempfile.TemporaryDirectory() as folder:
        runner = str(Path(sys.executable).with_name("horovodrun"))
        command = [runner, "--gloo", "-np", str(count), sys.executable]
        command += ["-m", "benchmarks.scaling.exchange", "--worker", folder]
        command += ["--repeats", str(options.repeats)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        found = medians([json.loads(path.read_text()) for path in Path(folder).iterdir()])
    print(report(found, count, load))


def report(found: dict[str, float], processes: int, load: float) -> str:
    """Returns the table and the fit, and the medians as JSON in the last line."""
    from convoy.model.catalog import get_arch

    alpha, beta = alpha_beta(found, processes)
    size = 4 * get_arch(MODEL).trainable_1000
    predicted = alpha + 2 * (processes - 1) / processes * size / beta
    lines = [
        f"{processes} processes, one core each; load before {load:.2f}",
        "",
        "| exchanged | ms |",
        "|---|---|",
        *(f"| {int(size) / 1e6:.3f} MB | {1e3 * found[str(size)]:.2f} |" for size in SIZES),
        f"| {MODEL}, {size / 1e6:.1f} MB in many tensors | {1e3 * found[MODEL]:.2f} |",
        "",
        f"- α {1e3 * alpha:.2f} ms, β {beta / 1e9:.2f} GB/s;"
        f" so {MODEL} should take {1e3 * predicted:.1f} ms",
        "",
        strict_json.dumps(found),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
