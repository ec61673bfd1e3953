"""Contenders that read photographs or train on them."""

import json
import subprocess
import sys

import pytest

from benchmarks.contenders import photographs
from benchmarks.harness.machine import ROOT


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "photographs"
    photographs.write(folder, count=128, classes=2)
    return folder


def two_turns(photos, module, maker, **arguments):
    """Returns what a contender measures in a new process: TensorFlow's threads are global."""
    script = (
        "import json, pathlib, sys\n"
        f"from benchmarks.contenders import {module} as module\n"
        f"module.prepared = lambda: pathlib.Path({str(photos)!r})\n"
        f"made = module.{maker}(**json.loads(sys.argv[1]))\n"
        "made.turn(2), made.turn(1)\n"
        "print(json.dumps(made.measures()))\n"
    )
    command = [sys.executable, "-c", script, json.dumps(arguments)]
    done = subprocess.run(command, cwd=ROOT, check=True, timeout=250, stdout=-1)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("augmenter", ["none", "autoaugment", "randaugment"])
@pytest.mark.parametrize("maker", ["tf_image", "keras_layers"])
def test_loaders_of_other_programs_yield_batches(photos, maker, augmenter):
    two_turns(photos, "inputs", maker, augmenter=augmenter)


@pytest.mark.slow
@pytest.mark.parametrize("augmenter", ["none", "autoaugment", "randaugment"])
def test_our_loader_yields_batches(photos, augmenter):
    two_turns(photos, "inputs", "ours", augmenter=augmenter, data_backend="tfdata")


@pytest.mark.slow
@pytest.mark.parametrize("augmenter", [None, "autoaugment"])
def test_the_trainer_continues_from_turn_to_turn(photos, augmenter):
    small = {"arch": "efficientnet-test", "size": 32, "batch": 4, "augmenter": augmenter}
    assert 0 <= two_turns(photos, "e2e", "trainer", **small)["wait"] < 100
