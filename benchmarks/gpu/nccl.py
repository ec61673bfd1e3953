"""Exchanges tensors through Horovod in one process, and compares them with NumPy's results.

    python -m benchmarks.gpu.nccl

On a GPU this loads NCCL, makes a communicator of one, and runs each kernel of
scripts/horovod/cuda_kernels.cc, which NVRTC compiles at first use. It cannot show an exchange
between GPUs: NCCL refuses two processes on one GPU. Without a GPU the tensors go through Gloo.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import tensorflow as tf

from convoy.utils.distributed.horovod_build import load

SIZES = (1, 7, 1024, 1_000_003)
TYPES = ("float32", "float16", "float64", "int32", "int64", "uint8", "int8")


def main() -> int:
    """Prints a line for each type; returns 1 if a result is wrong."""
    hvd = load()
    hvd.init()
    gpu = bool(tf.config.list_physical_devices("GPU"))
    way = "NCCL" if hvd.nccl_built() and gpu else "Gloo"
    print(f"through {way}, on {'the GPU' if gpu else 'the CPU'}, {hvd.size()} process")
    good = way == "NCCL" or not gpu
    if not good:
        print("WRONG: there is a GPU, and Horovod was built without NCCL")
    for name in TYPES:
        begun = time.perf_counter()
        wrong = [*_together(hvd, name, gpu), *_alone(hvd, name, gpu)]
        seconds = time.perf_counter() - begun
        print(f"{name:<10}{'WRONG: ' + ', '.join(wrong) if wrong else 'right'}, {seconds:.2f} s")
        good &= not wrong
    return 0 if good else 1


def _values(name: str) -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.integers(0, 100, n).astype(name) for n in SIZES]


def _together(hvd: Any, name: str, gpu: bool) -> list[str]:
    """Exchanges tensors as a group, which are copied into one buffer and scaled on the way."""
    factor = 0.5 if "float" in name else 1.0
    values = _values(name)
    with tf.device("GPU:0" if gpu else "CPU:0"):
        given = [tf.constant(value) for value in values]
        found = hvd.grouped_allreduce(given, op=hvd.Sum, prescale_factor=factor)
    pairs = zip(found, values, SIZES, strict=True)
    return [
        f"{n} together"
        for a, b, n in pairs
        if not np.array_equal(a.numpy(), (b * factor).astype(name))
    ]


def _alone(hvd: Any, name: str, gpu: bool) -> list[str]:
    """Exchanges each tensor by itself, scaled afterwards, and broadcasts it."""
    factor = 0.25 if "float" in name else 1.0
    wrong = []
    for value, n in zip(_values(name), SIZES, strict=True):
        with tf.device("GPU:0" if gpu else "CPU:0"):
            given = tf.constant(value)
            found = hvd.allreduce(given, op=hvd.Sum, postscale_factor=factor)
            sent = hvd.broadcast(given, 0)
        if not np.array_equal(found.numpy(), (value * factor).astype(name)):
            wrong.append(f"{n} alone")
        if not np.array_equal(sent.numpy(), value):
            wrong.append(f"{n} sent")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
