"""Chooses the data type for computing: what `--dtype` says, or what `--use_amp` means here."""

from __future__ import annotations

from typing import NamedTuple

from convoy.model import native
from convoy.model.catalog import get_arch
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.modes import MODES
from convoy.utils.machine import device


class Precision(NamedTuple):
    """The data type for computing.

    Attributes:
        policy: Keras' dtype policy.
        reason: why `--use_amp` means this on a CPU; empty elsewhere.
    """

    policy: str
    reason: str = ""


def precision(config: Config) -> Precision:
    """Returns the data type for computing on this machine; TensorFlow's devices must be set up."""
    gpu = device.has_gpu()
    if config.use_amp and not config.dtype and not gpu:
        return _mixed_on_cpu(config)
    return Precision(device.precision(config.use_amp, config.dtype, gpu))


def _mixed_on_cpu(config: Config) -> Precision:
    """Decides by measured times, bfloat16 ÷ float32.

    Steps of training (docs/performance/training.md):

    | processor | EfficientNet | without our operations | ResNet50 | without |
    |---|---|---|---|---|
    | AMX | 2.0 (B0) | 0.78 | 2.5 | 1.6 |
    | AVX-512 with bfloat16 | 1.7 (B0), 1.3 (B4) | 0.88 (B4) | 1.3 | 1.1 |
    | AVX2 alone | 0.2 (B0) | | | |

    Inference as `builders.inference` makes it (docs/performance/inference.md), on AVX-512 with
    bfloat16: 1.51 (B0) and 2.12 (ResNet50), whether our operations are built or not.
    """
    bfloat16, float32 = "mixed_bfloat16", "float32"
    multiplies = device.multiplies_bfloat16()
    if multiplies is None:
        return Precision(bfloat16, "no step was measured on processors of this kind")
    if not multiplies:
        return Precision(float32, "this processor has no instructions for bfloat16")
    if get_arch(config.arch).family != "efficientnet":
        return Precision(bfloat16, "this processor multiplies it")
    trains = MODES[config.mode].trains
    if not config.use_xla and (not trains or native.LIBRARY.load()[0] is not None):
        return Precision(bfloat16, "this processor multiplies it")
    why = "--use_xla leaves out" if config.use_xla else "are not built here"
    return Precision(
        float32, f"EfficientNets are slower in bfloat16 without our own operations, which {why}"
    )
