"""Runs `--mode training_benchmark` and `inference_benchmark`: measures speed.

A measurement has no effect on a run.

Precisions, XLA and formats make rows (`runtime.benchmark.plan`). Each row is measured at one batch
size after another until memory runs out, and the report is rewritten after every measurement.
"""

from __future__ import annotations

import gc
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from convoy.runtime.benchmark.benchmark_report import QS, UNITS, Report, figures
from convoy.runtime.benchmark.inference import Inference, threads
from convoy.runtime.benchmark.plan import DEFAULT_ITERATIONS, Row, batch_sizes, rows
from convoy.runtime.benchmark.recommend import recommendation
from convoy.runtime.benchmark.training import train
from convoy.runtime.builders.precision import precision
from convoy.runtime.describe.environment import gather
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flag_facts import without_places
from convoy.runtime.settings.images import image_size, train_image_size
from convoy.runtime.settings.input_backend import backend
from convoy.runtime.settings.output_paths import benchmark_stem
from convoy.utils.distributed import ranks
from convoy.utils.errors import ConfigError, UserError
from convoy.utils.logging import RunLog
from convoy.utils.machine import device
from convoy.utils.machine.resources import PeakMemory, free_memory, out_of_memory


class MeasurementError(UserError, RuntimeError):
    """There is nothing to report."""


def run(config: Config, run_log: RunLog) -> dict[str, Any]:
    """Measures every cell, and writes the report as .json and .md.

    Its path is `--output`, or `model_dir/MODE_Nx` for N processes.

    Returns:
        For one cell, its figures under the documents' names; for several, their number and the
        report's place.

    Raises:
        ConfigError: this GPU lacks a precision.
        MeasurementError: not even the first batch size fits.
    """
    chief = ranks.rank() == 0
    wanted = rows(config, _precision_of(config))
    if any(row.precision == "tf32" for row in wanted) and not _has_tf32():
        raise ConfigError("--benchmark_precisions tf32: this GPU is older than TensorFloat-32")
    report = Report(_about(config))
    stem = benchmark_stem(config, ranks.size())
    for name, unit in UNITS.items():
        run_log.metadata(name, unit)
    several = len(wanted) * len(batch_sizes(config)) > 1
    for row in wanted:
        for cell in _measure_row(config, row, RunLog() if several else run_log):
            report.cells.append(cell)
            if several:
                run_log.log((len(report.cells),), cell)
            if chief:
                print(_line(cell), flush=True)
            ranks.on_rank0(lambda: report.write(stem))
    if not report.measured:
        raise MeasurementError(f"nothing could be measured: {report.cells[0]['note']}")
    if chief:
        if config.mode == "inference_benchmark" and (advice := recommendation(report.cells)):
            print(advice, flush=True)
        print(f"wrote {stem}.json and {stem}.md", flush=True)
    if not several:
        return _by_documents(report.cells[0], config.mode == "training_benchmark")
    return {"measured": len(report.measured), "report": f"{stem}.md"}


def _measure_row(config: Config, row: Row, run_log: RunLog) -> Iterator[dict[str, Any]]:
    """Yields one cell after another, up to and including the first that does not fit."""
    config = config.with_(**row.settings())
    set_precision(config)
    if config.mode == "training_benchmark":
        yield from _sweep(config, row, partial(train, run_log=run_log))
        return
    with tempfile.TemporaryDirectory(prefix="convoy-benchmark-") as folder:
        # The first cell makes it, so that its memory is counted there.
        made = cache(lambda: Inference(config, row, Path(folder)))
        yield from _sweep(config, row, lambda now: made()(now))


def _sweep(
    config: Config, row: Row, measure: Callable[[Config], dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    training = config.mode == "training_benchmark"
    gpu = device.has_gpu() and not row.on_host
    seen: list[tuple[int, int]] = []  # batch sizes and peak memory at each
    for batch in batch_sizes(config):
        now = config.with_(train_batch_size=batch, eval_batch_size=batch)
        # need not divide evenly; --grad_accum_steps does not change
        if config.benchmark_batch_sizes:
            now = now.with_(optimizer_batch_size=None)
        cell: dict[str, Any] = {
            "format": row.format,
            "precision": row.precision,
            "xla": row.xla,
            "batch_size": batch,
            "device": "GPU" if gpu else "CPU",
            "processes": ranks.size(),
            "resolution": train_image_size(config) if training else image_size(config),
            "load_before": os.getloadavg()[0],
        }
        note = None if gpu else _no_room(seen, batch)
        cell |= {"note": note} if note else _measure(measure, now, gpu)
        yield cell
        if cell["note"]:
            return
        seen.append((batch, cell["peak_memory"]))


def _no_room(seen: list[tuple[int, int]], batch: int) -> str | None:
    """Returns why a batch is not tried on a host; the same on every rank.

    Its memory is predicted from the last two batches.

    A GPU rejects what does not fit, but a host's kernel would kill the program.
    """
    note = None
    if len(seen) > 1:
        (small, least), (large, most) = seen[-2:]
        peak = most + max(0.0, (most - least) / (large - small)) * (batch - large)
        missing = peak - PeakMemory(gpu=False).before - free_memory() / ranks.local_size()
        if missing > 0:
            note = f"not tried: about {peak / 2**30:.1f} GiB of memory are more than is free"
    return next(filter(None, ranks.all_gather_object(note)), None)


def _measure(
    measure: Callable[[Config], dict[str, Any]], config: Config, gpu: bool
) -> dict[str, Any]:
    """Returns figures and `note`, the same on every rank."""
    gc.collect()
    memory = PeakMemory(gpu)
    result: dict[str, Any] = {}
    try:
        result, problem = measure(config), None
    except Exception as error:
        if not out_of_memory(error):
            raise
        problem = "out of memory"
    note = next(filter(None, ranks.all_gather_object(problem)), None)
    if note:
        return {"note": note}
    joules = result.pop("energy")
    data, compute = (ranks.all_gather(result.pop(name)[None]) for name in ("data", "compute"))
    images = result["images_per_iteration"]
    result |= figures(data, compute, images)
    result["peak_memory"] = int(ranks.all_gather(np.array([memory.read()], np.int64)).max())
    result["memory_of"] = memory.of
    # One process of each host reports its energy.
    energies = ranks.all_gather_object(None if ranks.local_rank() else joules)
    if known := [joules for joules in energies if joules is not None]:
        result["energy"] = sum(known)
        result["energy_per_image"] = sum(known) / (images * result["iterations"])
    return result | {"note": None}


def set_precision(config: Config) -> None:
    """Sets the flags' precision for models built from now on."""
    keras.config.set_dtype_policy(precision(config).policy)
    tf.config.experimental.enable_tensor_float_32_execution(config.tf32)


def _precision_of(config: Config) -> str:
    """Returns the name of the flags' precision."""
    policy = precision(config).policy
    if policy == "float32":
        return "tf32" if config.tf32 and _has_tf32() else "fp32"
    return "amp" if config.use_amp and not config.dtype else "bf16" if "b" in policy else "fp16"


def _has_tf32() -> bool:
    gpus = tf.config.get_visible_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return any(d.get("compute_capability", (0, 0)) >= (8, 0) for d in details)


def _about(config: Config) -> dict[str, Any]:
    """Returns what was measured, on which machine and with which software."""
    facts = gather()
    training = config.mode == "training_benchmark"
    reader = backend(config, training=training)
    settings = without_places(asdict(config))
    settings |= {"prof": config.prof or DEFAULT_ITERATIONS, "threads": threads(config)}
    names = ("cpu", "cpu cores", "memory", "gpus", "platform")
    cuda = {"CUDA": facts["tensorflow built with CUDA"]}
    return {
        "mode": config.mode,
        "arch": config.arch,
        "resolution": train_image_size(config) if training else image_size(config),
        "data": "synthetic" if reader == "synthetic" else f"real, by {reader}",
        "processes": ranks.size(),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": _commit(),
        "settings": settings,
        "machine": {name: facts[name] for name in names},
        "versions": {"python": facts["python"]} | facts["packages"] | cuda,
    }


def _commit() -> str | None:
    """Returns the commit of the running working copy, if it is one."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _line(cell: dict[str, Any]) -> str:
    """Formats a cell for the terminal."""
    xla = " XLA" if cell["xla"] else ""
    text = f"{cell['format']:<12}{cell['precision'] + xla:<10}batch {cell['batch_size']:<6} "
    if cell["note"]:
        return text + cell["note"]
    return (
        f"{text}{cell['throughput']:10.1f} images/s  latency {cell['latency_avg']:.2f} ms,"
        f" 99 %: {cell['latency_99']:.2f} ms"
    )


def _by_documents(cell: dict[str, Any], training: bool) -> dict[str, float]:
    """Returns a cell's figures under the names in NVIDIA's documents."""
    kind = "training" if training else "eval"
    return {
        f"avg_exp_per_second_{kind}": cell["throughput"],
        f"avg_exp_per_second_{kind}_per_GPU": cell["throughput"] / cell["processes"],
        "avg_time_per_exp_eval" if not training else "train.compute_time": cell["latency_avg"]
        / (1000 if training else 1),
        **{f"latency_{q}pct": cell[f"latency_{q}"] for q in QS},
    }
