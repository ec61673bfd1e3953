"""Chooses the backend that reads a split, and checks that this machine has it. No TensorFlow."""

from __future__ import annotations

import importlib.util

from convoy.runtime.settings.config import Config
from convoy.runtime.settings.modes import BENCHMARK_MODES
from convoy.utils.distributed import ranks
from convoy.utils.errors import ConfigError
from convoy.utils.extras import DALI, how_to_install
from convoy.utils.installed import installed_of
from convoy.utils.machine import device
from convoy.utils.machine.gpus import driver_cuda, visible_gpus

EVALUATING = ("train_and_eval", "eval", "inference_benchmark")


def backend(config: Config, *, training: bool) -> str:
    """Returns one of `--data_backend`'s choices, for training data or for evaluation data.

    `--use_dali` and `--use_dali_eval` mean DALI on a GPU if there is one, otherwise on the CPU.
    """
    if config.data_backend is not None:
        return config.data_backend
    if config.use_dali if training else config.use_dali_eval:
        return "dali-gpu" if visible_gpus() else "dali-cpu"
    return "tfdata"


def check_backend(config: Config) -> None:
    """Rejects a backend that does not fit the mode, the other flags or this machine.

    Raises:
        ConfigError: it does not fit.
    """
    older = [f"--{name}" for name in ("use_dali", "use_dali_eval") if getattr(config, name)]
    if config.data_backend == "synthetic" and config.mode not in BENCHMARK_MODES:
        raise ConfigError(f"--data_backend synthetic is for --mode {' and '.join(BENCHMARK_MODES)}")
    if older and config.data_backend in ("tfdata", "synthetic"):
        raise ConfigError(
            f"{' and '.join(older)} and --data_backend {config.data_backend} disagree: leave"
            " one of them out"
        )
    trains = "train" in config.mode or config.mode == "lr_find"
    evaluates = config.mode in EVALUATING
    used = {backend(config, training=t) for t, here in ((True, trains), (False, evaluates)) if here}
    if not used & {"dali-cpu", "dali-gpu"}:
        return
    flag = f"--data_backend {config.data_backend}" if config.data_backend else " ".join(older)
    if not _installed("nvidia.dali"):
        raise ConfigError(
            f"{flag} needs NVIDIA DALI: {how_to_install('dali')}; or leave the flag out"
        )
    if "dali-gpu" in used and not visible_gpus():
        raise ConfigError(
            f"{flag} needs an NVIDIA GPU, and none is visible here: --data_backend dali-cpu runs"
            " DALI on the CPU"
        )
    _check_build(flag, "dali-gpu" in used)


def _check_build(flag: str, on_gpu: bool) -> None:
    """Rejects a DALI that is for another CUDA than the driver, or two at once."""
    found = installed_of(*DALI.values())
    remedy = how_to_install("dali")
    if len(found) > 1:
        raise ConfigError(
            f"{flag} cannot tell {' from '.join(found)}, which have files of the same names: pip"
            f" uninstall {' '.join(found)}, then {remedy}"
        )
    if on_gpu and found == [DALI[13]] and (cuda := driver_cuda()) < (13, 0):
        raise ConfigError(
            f"{flag} with {DALI[13]} needs a driver for CUDA 13 (580 or newer), and this one is for"
            f" CUDA {'.'.join(map(str, cuda))}: pip uninstall {DALI[13]}, then {remedy}"
        )


def check_data_format(config: Config) -> None:
    """Rejects channels_first (NCHW) where TensorFlow's CPU kernels would have to convolve in it.

    Raises:
        ConfigError: they would.
    """
    if config.data_format == "channels_last" or device.has_gpu():
        return
    if config.mode in ("summary", "convert"):
        return
    if config.batch_norm == "syncbn" and ranks.size() > 1:
        raise ConfigError(
            "--data_format channels_first with --batch_norm syncbn needs GPUs: on CPUs XLA would"
            " have to compile the whole step, and synchronised batch norm splits it"
        )
    rows = config.benchmark_xla  # a benchmark's rows override --use_xla
    if not (config.use_xla if rows is None else "off" not in rows):
        raise ConfigError(
            "--data_format channels_first needs a GPU, or --use_xla: TensorFlow's convolutions for"
            " CPUs support only channels_last (oneDNN's support both, but some builds lack them)"
        )


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing too
        return False
