"""Reports a benchmark: figures from times, a JSON report, and tables as in NVIDIA's documents.

Imports no TensorFlow.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convoy.runtime.settings.flag_facts import without_places
from convoy.utils import strict_json
from convoy.utils.errors import ConfigError
from convoy.utils.files import path_of, write_atomically
from convoy.utils.metrics import percentiles

QS = (50, 90, 95, 99)
UNITS = {
    "throughput": "images/s",
    "latency_avg": "ms",
    **{f"latency_{q}": "ms" for q in QS},
    "data_wait_avg": "ms",
    "peak_memory": "bytes",
    "energy": "J",
    "energy_per_image": "J",
}
DEFINITIONS = {
    "iteration": "training: one update of the weights; inference: one batch, from uint8 images in"
    " host memory to results in host memory",
    "throughput": "images of all processes in all timed iterations, over the seconds that the"
    " slowest process took for them, waiting for data included; a last batch that is filled up"
    " counts as a full one, which it is to the processor",
    "latency": "seconds of one iteration without waiting for data; the mean over timed iterations"
    " of all processes, and percentiles of them with linear interpolation, as numpy.percentile's",
    "data_wait_avg": "mean wait for the batch before an iteration",
    "peak_memory": "most that was taken while this batch size was warmed up and timed, in training"
    " and with a row's first one also while the model was made, by the process that took most: of"
    " the device as TensorFlow's allocator counts it, or resident in host memory",
    "energy": "of the processors' packages during the timed iterations, by RAPL; GPUs not included",
    "load_before": "the host's load average of one minute, before the row",
}

# What two reports must have in common for weak scaling; and, of machine and settings, what may
# differ: cells contain it themselves, or it belongs to a launch.
SAME = ("mode", "arch", "resolution", "data", "versions")
PROCESSORS = ("cpu", "gpus")
FREE_SETTINGS = {
    *("nproc", "recipe", "prof", "threads", "intraop_threads", "interop_threads"),
    *("benchmark_batch_sizes", "benchmark_precisions", "benchmark_xla", "benchmark_warmup"),
    *("train_batch_size", "eval_batch_size", "optimizer_batch_size", "grad_accum_steps"),
    *("use_xla", "use_amp", "dtype", "tf32", "verbose", "log_filename", "watchdog_seconds"),
    "data_wait_seconds",
}


def figures(data: np.ndarray, compute: np.ndarray, images: int) -> dict[str, float]:
    """Computes figures from timed iterations, in the units of `UNITS`.

    Args:
        data: seconds of waiting for each batch, `(processes, iterations)`.
        compute: seconds of each iteration after that, in the same shape.
        images: images of all processes in one iteration.
    """
    tail = percentiles(compute.ravel() * 1e3, QS)
    return {
        "iterations": compute.shape[1],
        "throughput": images * compute.shape[1] / float((data + compute).sum(axis=1).max()),
        "latency_avg": float(compute.mean()) * 1e3,
        **{f"latency_{q}": tail[q] for q in QS},
        "data_wait_avg": float(data.mean()) * 1e3,
    }


@dataclass
class Report:
    """A benchmark's report, with one cell for each row and batch size.

    A cell has `format`, `precision`, `xla`, `batch_size`, `device`, `processes`, `resolution`, and
    either the names of `UNITS` or a `note` that says why they are missing.

    Attributes:
        about: mode, architecture, data, settings, machine and versions.
    """

    about: dict[str, Any]
    cells: list[dict[str, Any]] = field(default_factory=list)

    @property
    def measured(self) -> list[dict[str, Any]]:
        """Returns the cells with figures."""
        return [cell for cell in self.cells if not cell["note"]]

    def write(self, stem: str) -> None:
        """Replaces `stem`.json and `stem`.md.

        Raises:
            ConfigError: they cannot be written.
        """
        content = self.about | {"units": UNITS, "definitions": DEFINITIONS, "cells": self.cells}
        json_text = strict_json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        for end, text in ((".json", json_text), (".md", self.markdown(self._single(stem)))):
            try:
                path_of(stem + end).parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path_of(stem + end), text)
            except OSError as error:
                raise ConfigError(f"--output {stem}: {error}") from error

    def markdown(self, single: Sequence[dict[str, Any]] = ()) -> str:
        """Returns the tables, with the machine and software of the measurement.

        Args:
            single: cells of the same benchmark in one process, for weak scaling.
        """
        about = self.about
        training = about["mode"] == "training_benchmark"
        parts = [f"# {about['mode']}: {about['arch']}", _where(about, self.cells)]
        if training:
            parts += ["## Training performance", self._training_table(single)]
        kind = "Training" if training else "Inference"
        for row in _rows(self.cells):
            cells = [cell for cell in self.cells if _key(cell) == row]
            parts.append(f"## {kind} latency: {_name(row)}")
            if about["machine"]["gpus"]:
                parts[-1] += f", on the {cells[0].get('device', 'GPU')}"
            if models := {_plain(cell["model"]) for cell in cells if "model" in cell}:
                parts.append(f"Model: {', '.join(sorted(models))}.")
            parts.append(self._latency_table(cells))
        parts.append("\n".join(f"- {name}: {text}." for name, text in DEFINITIONS.items()))
        return "\n\n".join(parts) + "\n"

    def _training_table(self, single: Sequence[dict[str, Any]]) -> str:
        """Returns the throughput of each precision beside the first one's, by batch size."""
        rows = _rows(self.cells)
        names = [_name(row, short=True) for row in rows]
        head = ["Processes", "Batch size", *(f"Throughput - {name}" for name in names)]
        head += [f"Throughput speedup ({names[0]} to {name})" for name in names[1:]]
        head += [f"Weak scaling - {name}" for name in names] if single else []
        lines = []
        for batch in dict.fromkeys(cell["batch_size"] for cell in self.cells):
            cells = [self._cell(row, batch) for row in rows]
            speeds = [cell.get("throughput") for cell in cells]
            alone = [
                _alone(single, cell, row, batch) for row, cell in zip(rows, cells, strict=True)
            ]
            line = [self.about["processes"], batch]
            line += [
                cell.get("note") or _number(cell.get("throughput"), 1, "not tried")
                for cell in cells
            ]
            line += [_number(_ratio(speed, speeds[0]), 2) for speed in speeds[1:]]
            if single:
                line += [_number(_ratio(a, b), 2) for a, b in zip(speeds, alone, strict=True)]
            lines.append(line)
        return _table(head, lines)

    def _latency_table(self, cells: Sequence[dict[str, Any]]) -> str:
        head = ["Batch size", "Resolution", "Throughput Avg", "Latency Avg (ms)"]
        head += [f"Latency {q}% (ms)" for q in QS] + ["Peak memory (MiB)"]
        energy = any(cell.get("energy_per_image") for cell in cells)
        lines = []
        for cell in cells:
            size = f"{cell['resolution']}x{cell['resolution']}"
            line = [cell["batch_size"], size]
            if cell["note"]:
                line += [cell["note"], *[""] * (len(QS) + 2)]
            else:
                line += [_number(cell["throughput"], 1), _number(cell["latency_avg"], 2)]
                line += [_number(cell[f"latency_{q}"], 2) for q in QS]
                line += [_number(cell["peak_memory"] / 2**20, 0)]
            line += [_number(cell.get("energy_per_image"), 3)] if energy else []
            lines.append(line)
        return _table(head + (["Energy (J/image)"] if energy else []), lines)

    def _single(self, stem: str) -> list[dict[str, Any]]:
        """Returns the benchmark's cells in one process, if that report is beside this one."""
        path = path_of(stem + ".json")
        try:
            alone = json.loads((path.parent / f"{self.about['mode']}_1x.json").read_text())
            alike = _same(alone) == _same(self.about)
            alike &= alone["processes"] == 1 < self.about["processes"]
            return [cell for cell in alone["cells"] if not cell["note"]] if alike else []
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def _cell(self, row: tuple, batch: int) -> dict[str, Any]:
        return _find(self.cells, row, batch)


def _key(cell: dict[str, Any]) -> tuple:
    return cell["format"], cell["precision"], cell["xla"]


def _rows(cells: Sequence[dict[str, Any]]) -> list[tuple]:
    return list(dict.fromkeys(map(_key, cells)))


def _find(cells: Sequence[dict[str, Any]], row: tuple, batch: int) -> dict[str, Any]:
    found = (cell for cell in cells if (_key(cell), cell["batch_size"]) == (row, batch))
    return next(found, {})


def _same(about: dict[str, Any]) -> list[Any]:
    """Returns what two reports must have in common."""
    settings = without_places(about["settings"])  # reports of version 0.1 contain some
    settings = {k: v for k, v in settings.items() if k not in FREE_SETTINGS}
    processors = [set(np.atleast_1d(about["machine"][name])) for name in PROCESSORS]
    return [*(about[name] for name in SAME), processors, settings]


def _alone(
    single: Sequence[dict[str, Any]], cell: dict[str, Any], row: tuple, batch: int
) -> float | None:
    """Returns the throughput of the single process with as many passes per update as this cell."""
    found = _find(single, row, batch)
    alike = found.get("passes_per_update") == cell.get("passes_per_update")
    return found.get("throughput") if alike else None


def _name(row: tuple, short: bool = False) -> str:
    name, precision, xla = row
    text = f"{precision} with XLA" if xla else precision
    return text if short else f"{name}, {text}"


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a and b else None


def _number(value: float | None, digits: int, missing: str = "") -> str:
    return missing if value is None else f"{value:.{digits}f}"


def _table(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(_plain(str(x)) for x in row)} |" for row in rows)


def _plain(text: str) -> str:
    return " ".join(text.replace("|", "/").split())


def _range(cells: Sequence[dict[str, Any]], name: str) -> str:
    values = sorted({cell[name] for cell in cells if not cell["note"]})
    return " to ".join(map(str, dict.fromkeys([*values[:1], *values[-1:]]))) or "no"


def _where(about: dict[str, Any], cells: Sequence[dict[str, Any]]) -> str:
    """Describes in one paragraph the machine, the software and the number of repetitions."""
    machine, settings = about["machine"], about["settings"]
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    timed, warmup = (_range(cells, name) for name in ("iterations", "warmup_iterations"))
    loads = [cell["load_before"] for cell in cells] or [0.0]
    memory = f"{machine['memory'] / 2**30:.0f} GiB"
    versions = ", ".join(
        f"{name} {version}" for name, version in about["versions"].items() if version
    )
    return _plain(
        f"{about['date']}; {about['processes']} process{'es' * (about['processes'] > 1)};"
        f" {gpus}; {machine['cpu']}, {machine['cpu cores']} cores, {memory}; load before the rows"
        f" {min(loads):.2f} to {max(loads):.2f}. {versions}; {machine['platform']}."
        f" Data: {about['data']}. {timed} iterations timed after {warmup} of"
        f" warm-up; {settings['threads']} threads. {about['commit'] or ''}"
    )
