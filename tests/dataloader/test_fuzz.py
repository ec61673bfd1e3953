"""Mutated records and images in separate processes, where a crash is an exit status."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def fuzz(count, seed, timeout, script="fuzz_records.py"):
    command = [sys.executable, str(HERE / script), "--count", str(count), "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def check(found, count):
    assert found["records"] == count == found["refused"] + found["decoded"]
    # The mutations must lead to both outcomes, or the test proves nothing.
    assert min(found["refused"], found["decoded"]) > 0.1 * count


@pytest.mark.slow
def test_50_mutated_records_are_decoded_or_refused():
    check(fuzz(50, 0, 240), 50)


def test_60_mutated_images_are_used_or_named():
    found = fuzz(60, 0, 240, "fuzz_images.py")
    assert found["images"] == 60
    assert min(found["packed"], found["bad to verify"]) > 6


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_mutated_records_are_decoded_or_refused():
    found = fuzz(10_000, 1, 3500)
    check(found, 10_000)
    assert found["left out by evaluation"] > 100
