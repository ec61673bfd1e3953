"""The benchmark of several processes runs, with a model that is built quickly."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_every_kind_of_launch_is_measured_and_the_efficiency_printed():
    small = [
        "--arch",
        "efficientnet-test",
        "--size",
        "32",
        "--batch",
        "4",
        "--steps",
        "3",
        "--rounds",
        "1",
    ]
    command = [sys.executable, "-m", "benchmarks.scaling.weak_scaling", *small]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=250, check=True
    )
    figures = json.loads(done.stdout.splitlines()[-1])
    assert set(figures) == {"independent", "in step", "Horovod", "Horovod as released"}
    for (processes,) in figures.values():
        assert len(processes) == 2
        for parts in processes:
            assert {name: len(values) for name, values in parts.items()} == {
                "gradients": 3,
                "exchange": 3,
                "update": 3,
            }
    assert "weak-scaling efficiency" in done.stdout
