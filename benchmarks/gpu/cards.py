"""Describes the GPU of the measurement, and its peak speed. Imports no TensorFlow."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass

# Dense peaks in 10¹² operations per second, from NVIDIA's data sheets and white papers for each
# card (which often print the doubled figures for 2:4 sparsity). float16 and bfloat16: tensor cores,
# sums in float32; tf32: tensor cores; fp32: the other cores. Types that a card lacks are missing.
_HOPPER_SXM = {"float16": 989.4, "bfloat16": 989.4, "tf32": 494.7, "fp32": 66.9}
_HOPPER_NVL = {"float16": 835.5, "bfloat16": 835.5, "tf32": 417.5, "fp32": 60.0}
PEAKS: dict[str, dict[str, float]] = {
    r"V100-SXM2": {"float16": 125.0, "fp32": 15.7},
    r"V100-PCIE": {"float16": 112.0, "fp32": 14.0},
    r"A100": {"float16": 312.0, "bfloat16": 312.0, "tf32": 156.0, "fp32": 19.5},
    r"H100 PCIe": {"float16": 756.0, "bfloat16": 756.0, "tf32": 378.0, "fp32": 51.2},
    r"H[12]00 NVL": _HOPPER_NVL,
    r"H100 80GB HBM3|H200$": _HOPPER_SXM,
    r"L4$": {"float16": 121.0, "bfloat16": 121.0, "tf32": 60.0, "fp32": 30.3},
    r"L40S$": {"float16": 362.0, "bfloat16": 362.0, "tf32": 183.0, "fp32": 91.6},
    r"RTX 4090$": {"float16": 165.2, "bfloat16": 165.2, "tf32": 82.6, "fp32": 82.6},
}
"""Peaks by the end of `nvidia-smi`'s name: a regular expression that begins at a word."""


def peak(card: str, dtype: str) -> float | None:
    """Returns the peak operations per second, or None for a card or precision not in the table.

    Args:
        card: name from nvidia-smi.
        dtype: "float16", "bfloat16", or "float32", which means TensorFloat-32 if the card has it.
    """
    found = next((p for name, p in PEAKS.items() if re.search(rf"\b({name})", card)), {})
    number = found.get("tf32", found.get("fp32")) if dtype == "float32" else found.get(dtype)
    return number and number * 1e12


def mfu(images_per_s: float, macs: float, at_most: float | None) -> float | None:
    """Returns model FLOP/s over the card's peak: a multiply-add is two operations, and a backward
    pass counts as two forward ones, so an image takes 3 × 2 × `macs`, whatever is really computed.
    """
    return images_per_s * 3 * 2 * macs / at_most if at_most else None


@dataclass(frozen=True)
class Card:
    """A GPU, as nvidia-smi describes it."""

    name: str
    memory_mib: float
    driver: str

    def used(self) -> float:
        """Returns the fraction of its memory in use now, by any program; 0 if unknown."""
        found = _ask("memory.used")
        return float(found[0]) / self.memory_mib if found else 0.0


def find_card() -> Card | None:
    """Returns the first GPU that programs see here, or None."""
    found = _ask("name,memory.total,driver_version")
    return Card(found[0], float(found[1]), found[2]) if found else None


def _ask(what: str) -> list[str]:
    """Returns nvidia-smi's answers about the first visible GPU, memory in MiB; [] without one."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits", "-i", visible]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = done.stdout.splitlines()
    return [word.strip() for word in lines[0].split(",")] if done.returncode == 0 and lines else []
