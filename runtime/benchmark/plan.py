"""Plans a benchmark: rows, each at several batch sizes. Imports no TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from convoy.runtime.export.formats import FORMATS, check_packages
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flags import batch_number
from convoy.runtime.settings.modes import BENCHMARK_MODES
from convoy.utils.distributed.launched import launched_processes
from convoy.utils.errors import ConfigError
from convoy.utils.machine.gpus import visible_gpus

# Each with the flags for it.
PRECISIONS: dict[str, dict[str, Any]] = {
    "fp32": {"use_amp": False, "dtype": "float32", "tf32": False},
    "tf32": {"use_amp": False, "dtype": "float32", "tf32": True},
    "amp": {"use_amp": True, "dtype": None},
    "bf16": {"use_amp": False, "dtype": "bfloat16"},
    "fp16": {"use_amp": False, "dtype": "float16"},
}
XLA = {"off": False, "on": True}
KERAS = "keras"
HOST_FORMATS = ("tflite", "tflite-int8", "onnx", "onnx-int8")
# The largest batches in NVIDIA's tables; all other models use ResNet50's.
SWEEP_ENDS = {"efficientnet-b0": 1024, "efficientnet-b4": 128}
SWEEP_END = 256
DEFAULT_ITERATIONS = 100


@dataclass(frozen=True)
class Row:
    """The settings that do not change while batches grow.

    Attributes:
        format: "keras", or one of `runtime.export.formats.FORMATS`.
        precision: one of `PRECISIONS`, or "int8".
        xla: whether XLA compiles the model.
    """

    format: str
    precision: str
    xla: bool

    @property
    def on_host(self) -> bool:
        """Returns whether its runtime uses the CPU here, with or without a GPU."""
        return self.format in HOST_FORMATS

    def settings(self) -> dict[str, Any]:
        """Returns the flags for this row."""
        return PRECISIONS.get(self.precision, PRECISIONS["fp32"]) | {"use_xla": self.xla}


def rows(config: Config, precision: str) -> list[Row]:
    """Returns the rows to compare, formats first. Exports are float32 or int8, and never compiled.

    Args:
        config: the flags.
        precision: the name of the flags' precision, used if no list is given.
    """
    precisions = _chosen(config, "benchmark_precisions", PRECISIONS) or [precision]
    xla = [XLA[name] for name in _chosen(config, "benchmark_xla", XLA)] or [config.use_xla]
    found = []
    for name in formats(config):
        if name == KERAS:
            found += [Row(name, p, x) for p in precisions for x in xla]
        else:
            found.append(Row(name, "int8" if "int8" in name else "fp32", False))
    return found


def formats(config: Config) -> list[str]:
    """Returns `--benchmark_formats` as a list."""
    return _chosen(config, "benchmark_formats", (KERAS, *FORMATS))


def batch_sizes(config: Config) -> list[int]:
    """Returns images per process and iteration, smallest first.

    Raises:
        ConfigError: `--benchmark_batch_sizes` is not a list of numbers from 1 up.
    """
    text = config.benchmark_batch_sizes
    if text is None:
        training = config.mode == "training_benchmark"
        return [batch_number(config.train_batch_size) if training else config.eval_batch_size]
    if text.strip() == "sweep":
        end = SWEEP_ENDS.get(config.arch, SWEEP_END)
        return [2**i for i in range(end.bit_length())]
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdecimal() and int(word) for word in words):
        raise ConfigError(
            f"--benchmark_batch_sizes {text}: give numbers from 1 with commas between them, or"
            " sweep"
        )
    return sorted({int(word) for word in words})


def check_benchmark(config: Config) -> None:
    """Rejects lists that make no sense here.

    Raises:
        ConfigError: a list makes no sense.
    """
    if config.mode not in BENCHMARK_MODES:
        for f in fields(Config):
            if f.name.startswith("benchmark_") and getattr(config, f.name) != f.default:
                raise ConfigError(f"--{f.name} is for --mode {' and '.join(BENCHMARK_MODES)}")
        return
    batch_sizes(config)
    wanted = rows(config, "fp32")
    if config.mode == "training_benchmark" and formats(config) != [KERAS]:
        raise ConfigError(
            "--benchmark_formats is for --mode inference_benchmark: exports cannot train"
        )
    for name in formats(config):
        if name != KERAS:
            check_packages(name, "--benchmark_formats")
    gpus = visible_gpus()
    if any(row.precision == "tf32" for row in wanted) and not gpus:
        raise ConfigError(
            "--benchmark_precisions tf32 needs an NVIDIA GPU: CPUs have no TensorFloat-32"
        )
    if config.benchmark_xla is None:
        return
    several = max(config.nproc or 1, launched_processes()) > 1
    if config.batch_norm == "syncbn" and config.mode == "training_benchmark" and several:
        raise ConfigError(
            "--benchmark_xla does not go with --batch_norm syncbn on several processes, which"
            " decides about XLA when the program starts: run it with --use_xla and without"
        )
    keras_rows = [row for row in wanted if row.format == KERAS]
    if config.data_format == "channels_first" and not gpus and not all(r.xla for r in keras_rows):
        raise ConfigError(
            "--benchmark_xla off with --data_format channels_first needs a GPU: TensorFlow's"
            " convolutions for CPUs take channels_last only"
        )


def _chosen(config: Config, flag: str, known: Any) -> list[str]:
    """Returns the names in a flag, in the order of `known`; [] if it is not set."""
    text = getattr(config, flag)
    if text is None:
        return []
    asked = {name.strip() for name in text.split(",") if name.strip()}
    if not asked or not asked <= set(known):
        raise ConfigError(
            f"--{flag} {text}: choose from {', '.join(known)}, with commas between them"
        )
    return [name for name in known if name in asked]
