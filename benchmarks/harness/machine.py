"""Describes the machine on which benchmarks run."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def about_machine() -> dict[str, Any]:
    """Returns the properties of the machine that affect measurements, and the date."""
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    model = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")
    if any("amx_bf16" in line for line in lines):
        model += " with AMX"  # the name of a cloud machine's CPU does not say so
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages / 2**30, 1),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def measured_on(machine: dict[str, Any]) -> str:
    """Returns a line of Markdown to put below a table."""
    return f"*{machine['cpu']}, {machine['cores']} cores, {machine['date']}*\n"
