"""The benchmark of input operations runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_the_benchmark_of_input_operations_runs_and_prints_its_table():
    command = [sys.executable, "-m", "benchmarks.costs.input_operations", "--rounds", "2"]
    command += ["--images", "64", "--threads", "1", "--only", "plain", "autoaugment", "AutoAugment"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.strip().splitlines()[-1])
    assert len(report["goals"]) == 4
    assert all(value > 0 for value in report["goals"].values())
    for result in report["results"]:
        assert len(result["cpu_ms"]) == len(result["images_per_s"]) == 2
        assert f"| {result['row']} | 1 |" in done.stdout
    assert 60_000 < report["machine"]["bytes per JPEG"] < 80_000
