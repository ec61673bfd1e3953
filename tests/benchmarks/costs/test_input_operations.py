"""The benchmark of the input pipeline runs, and its baseline computes what it claims to."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.contenders import float_autoaugment
from convoy.dataloader.augment import augmenter, policies

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def photo():
    from sklearn.datasets import load_sample_images

    return np.ascontiguousarray(load_sample_images().images[0][100:324, 200:424])


@pytest.mark.parametrize("op", sorted(float_autoaugment.BRANCHES))
@pytest.mark.parametrize("level", [2, 7])
def test_the_baseline_augments_like_our_operations(photo, op, level):
    argument = policies.argument(op, level)
    got = float_autoaugment.BRANCHES[op](tf.cast(photo, tf.float32), tf.constant(float(argument)))
    wanted = augmenter.apply_op(
        tf.constant(photo),
        tf.constant(policies.OPS.index(op)),
        tf.constant(argument, tf.float64),
        tf.zeros(2),
    )
    difference = np.abs(got.numpy() - wanted.numpy().astype(np.float32)).reshape(-1)
    # One of them rounds, and some sheared pixels are read half a pixel further on.
    assert np.median(difference) <= 1
    assert difference.mean() < 3


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
