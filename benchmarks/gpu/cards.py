"""Finds the GPU, and knows the peak speeds of GPUs. Does not import TensorFlow."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass

# Dense peaks in 10¹² operations per second, from NVIDIA's data sheets and white papers for each
# card (which often print doubled figures, for 2:4 sparsity). float16 and bfloat16: tensor cores
# with float32 accumulation; tf32: tensor cores; fp32: CUDA cores.
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
"""Peaks by card: a regular expression that matches in nvidia-smi's name, from a word's start."""


def peak(card: str, dtype: str) -> float | None:
    """Returns the peak operations per second, or None if the table lacks the card or precision.

    Args:
        card: name from nvidia-smi.
        dtype: "float16", "bfloat16", or "float32", which means TensorFloat-32 if the card has it.
    """
    found = next((p for name, p in PEAKS.items() if re.search(rf"\b({name})", card)), {})
    number = found.get("tf32", found.get("fp32")) if dtype == "float32" else found.get(dtype)
    return number and number * 1e12


def mfu(images_per_s: float, macs: float, at_most: float | None) -> float | None:
    """Returns the model FLOPs utilisation, or None if the peak is unknown.

    A multiply-add counts as two operations and a backward pass as two forward passes, so an image
    counts as 3 × 2 × `macs` operations, even if the program computes others.

    Args:
        macs: multiply-adds of a forward pass per image.
        at_most: the card's peak, in operations per second.
    """
    return images_per_s * 3 * 2 * macs / at_most if at_most else None


@dataclass(frozen=True)
class Card:
    """A GPU, as nvidia-smi describes it."""

    name: str
    memory_mib: float
    driver: str

    def used(self) -> float:
        """Returns the fraction of memory that all programs use now; 0 if unknown."""
        found = _ask("memory.used")
        return float(found[0]) / self.memory_mib if found else 0.0


def find_card() -> Card | None:
    """Returns the first visible GPU, or None."""
    found = _ask("name,memory.total,driver_version")
    return Card(found[0], float(found[1]), found[2]) if found else None


def _ask(what: str) -> list[str]:
    """Queries nvidia-smi about the first visible GPU (memory in MiB); [] if there is none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits", "-i", visible]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = done.stdout.splitlines()
    return [word.strip() for word in lines[0].split(",")] if done.returncode == 0 and lines else []
