"""Defines the cells to measure, most important first. Does not import TensorFlow."""

from __future__ import annotations

import glob
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.row import Entry
from benchmarks.rows.training import MACS
from convoy.model.catalog import get_arch

CONVOY, COMPILED, EAGER = "Convoy", "timm, torch.compile", "timm, PyTorch eager"
FIT = "keras.applications + fit"
HOST, DEVICE = "on the host", "on the device"
NAMES = {"b0": "efficientnet-b0", "b4": "efficientnet-b4", "resnet50": "resnet50"}
PRECISIONS = {"fp16": "float16", "bf16": "bfloat16", "tf32": "float32"}
# Images/s on one A100 80GB: NVIDIA's EfficientNet document (March 2021; TensorFlow 2.4, real data)
# and its ResNet50 v1.5 document (February 2021; PyTorch with DALI). docs/results.md has the full
# tables.
DOCUMENTS = {
    ("efficientnet-b0", "float16"): 2549,
    ("efficientnet-b0", "float32"): 1206,
    ("efficientnet-b4", "float16"): 394,
    ("efficientnet-b4", "float32"): 167,
    ("resnet50", "float16"): 2470,
    ("resnet50", "float32"): 938,
}
ORDER = [
    *("b0-fp16", "resnet50-fp16", "b4-fp16", "b0-input", "resnet50-input"),
    *("b0-fp16-peers", "resnet50-fp16-peers", "b0-bf16", "resnet50-bf16", "b4-bf16"),
    *("b0-tf32", "resnet50-tf32", "b4-tf32", "b4-fp16-peers"),
]


@dataclass(frozen=True)
class Cell:
    """A group of contenders that are measured in turns, each in a separate process.

    Attributes:
        dtype: "float16", "bfloat16" or "float32" (TensorFloat-32 if the card has it).
        size: pixels per side of an image.
        batch: images per step; contenders without enough memory use fewer.
    """

    name: str
    arch: str
    dtype: str
    size: int
    batch: int
    entries: tuple[Entry, ...]

    @property
    def is_input(self) -> bool:
        """Returns whether the cell measures input: photographs from disk."""
        return self.name.endswith("-input")


@dataclass(frozen=True)
class Setting:
    """Settings for starting contenders.

    Attributes:
        photographs: folder for the photographs.
        tiny: use small images and batches, on any device.
        site: folder with TensorFlow's unpacked wheels; only TensorFlow's contenders use it.
        torch_python: the interpreter for PyTorch's contenders.
    """

    photographs: Path
    tiny: bool = False
    site: Path | None = None
    torch_python: str = sys.executable

    def tensorflow(self) -> dict[str, str]:
        """Returns environment variables for TensorFlow's contenders."""
        found = {
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # otherwise TensorFlow reserves all of the memory
            # Room for kernels that the driver compiles for a new card.
            "CUDA_CACHE_MAXSIZE": str(2**32 - 1),
        }
        if self.site:
            nvidia = self.site / "nvidia"
            found |= {
                "PYTHONPATH": _before("PYTHONPATH", [str(self.site)]),
                "LD_LIBRARY_PATH": _before("LD_LIBRARY_PATH", glob.glob(f"{nvidia}/*/lib")),
                "PATH": _before("PATH", [f"{nvidia}/cuda_nvcc/bin"]),
                "XLA_FLAGS": f"--xla_gpu_cuda_data_dir={nvidia}/cuda_nvcc",
            }
        return found


def _before(variable: str, folders: list[str]) -> str:
    """Returns the value of an environment variable with these folders put in front."""
    return os.pathsep.join([*sorted(folders), *filter(None, [os.environ.get(variable)])])


def cells(setting: Setting) -> list[Cell]:
    """Returns all cells in the order of measurement."""
    return [_cell(name, setting) for name in ORDER]


def batch_of(arch: str, dtype: str) -> int:
    """Returns the batch per GPU that the documents use on an A100 80GB."""
    # It requires PyYAML, which only the folder of `--site` may have.
    from convoy.runtime.settings.recipes import lookup

    precision = "TF32" if dtype == "float32" else "AMP"
    return lookup(arch, precision, "DGXA100").launch["train_batch_size"]


def _cell(name: str, setting: Setting) -> Cell:
    short, kind, *rest = name.split("-")
    arch, dtype = NAMES[short], PRECISIONS.get(kind, "float16")
    size = 32 if setting.tiny else get_arch(arch).resolution
    batch = 4 if setting.tiny else batch_of(arch, dtype)
    same = {"arch": arch, "size": size, "batch": batch, "dtype": dtype}
    same["need_gpu"] = not setting.tiny
    make = _feeding if kind == "input" else _peers if rest else _duel
    return Cell(name, arch, dtype, size, batch, make(same, setting))


def _duel(same: dict[str, Any], setting: Setting) -> tuple[Entry, ...]:
    ours = {**same, "use_xla": True}
    return (
        Entry(CONVOY, "training:ours", ours, setting.tensorflow()),
        _timm(COMPILED, {**same, "compiled": True}, setting),
    )


def _peers(same: dict[str, Any], setting: Setting) -> tuple[Entry, ...]:
    ours, theirs = MACS[same["arch"]]
    arguments, work = {**same, "jit": True}, theirs / ours
    return (
        Entry(FIT, "training:keras_fit", arguments, setting.tensorflow(), work=work),
        _timm(EAGER, {**same, "compiled": False}, setting),
    )


def _timm(label: str, arguments: dict[str, Any], setting: Setting) -> Entry:
    return Entry(label, "training:timm_step", arguments, python=setting.torch_python)


def _feeding(same: dict[str, Any], setting: Setting) -> tuple[Entry, ...]:
    same = {**same, "photographs": str(setting.photographs)}
    return tuple(
        Entry(label, "feeding:ours", {**same, "augment_on": where}, setting.tensorflow())
        for label, where in ((HOST, "cpu"), (DEVICE, "device"))
    )
