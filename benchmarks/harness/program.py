"""Runs a benchmark that has its own command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.machine import ROOT, about_machine


@dataclass(frozen=True)
class Program:
    """A benchmark with its own command, which prints a table and then one line of JSON.

    Attributes:
        module: the module to run with `python -m`.
    """

    name: str
    title: str
    module: str

    def run(self) -> tuple[str, dict[str, Any]]:
        """Runs the command. Returns its table, and the measurements to save.

        Raises:
            subprocess.CalledProcessError: the command failed; it has printed the reason.
        """
        command, load = [sys.executable, "-m", self.module], os.getloadavg()[0]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        table, _, figures = done.stdout.rstrip().rpartition("\n")
        machine = about_machine() | {"load before": round(load, 2)}
        found = {"row": self.name, "machine": machine, "figures": json.loads(figures)}
        return table.strip() + "\n", found
