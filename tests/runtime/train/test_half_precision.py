"""Runs in float16 with a dynamic loss scale, as on GPUs, computed on the CPU."""

import math

import numpy as np
import pytest
from safetensors.numpy import load_file

from convoy.runtime.run_folder import checkpoint
from convoy.runtime.train import loss_scale
from convoy.runtime.train.loss_scale import LossScale
from tests.integration.in_process import start

HIGHEST = 2.0**24


@pytest.fixture
def flags(small_run, tiny, monkeypatch, keras_policy):
    """Flags of a run whose first steps overflow, because its loss scale starts at the highest."""
    monkeypatch.setattr(loss_scale, "_INITIAL_SCALE", HIGHEST)
    flags = (*small_run, "--mode", "train", "--dtype", "fp16", "--data_dir", tiny)
    return (*flags, "--max_epochs", "2", "--warmup_epochs", "0")


def saved(run):
    """Returns the last checkpoint's state, and its arrays by name."""
    found = checkpoint.read(checkpoint.latest(run))
    files = sorted(checkpoint.latest(run).glob("*.safetensors"))
    assert len(files) >= 2
    return found.state, {f"{f.name}/{k}": v for f in files for k, v in load_file(f).items()}


@pytest.mark.slow
def test_a_float16_run_survives_overflows_and_resumes_with_the_same_bits(flags, tmp_path, capsys):
    start(*flags, "--model_dir", tmp_path / "whole")
    start(*flags, "--model_dir", tmp_path / "parts", "--run_epochs", "1")
    first, _ = saved(tmp_path / "parts")
    start(*flags, "--model_dir", tmp_path / "parts", "--resume_checkpoint")
    assert "resuming from" in capsys.readouterr().out

    halvings = math.log2(HIGHEST / first["loss_scale"]["scale"])
    assert halvings >= 1, "no step overflowed"
    assert halvings == int(halvings)
    assert first["loss_scale"]["clean_steps"] > 0

    (state, whole), (parts_state, parts) = saved(tmp_path / "whole"), saved(tmp_path / "parts")
    assert state["loss_scale"] == parts_state["loss_scale"]
    assert state["loss_scale"]["clean_steps"] > first["loss_scale"]["clean_steps"]
    assert whole.keys() == parts.keys()
    for name, array in whole.items():
        assert array.dtype != np.float16, f"{name} is not kept in full precision"
        assert np.isfinite(array).all(), name
        np.testing.assert_array_equal(parts[name], array, err_msg=name)


@pytest.mark.parametrize(
    ("before", "after", "scale"),
    [
        (("1024", True), ("64", True), 64),
        (("1024", True), ("dynamic", True), 2**15),
        (("dynamic", False), ("dynamic", True), 2**15),
        (("dynamic", True), ("64", True), 64),
        (("dynamic", True), ("dynamic", False), 1),
    ],
)
def test_a_resumed_run_uses_the_loss_scale_that_it_is_given(before, after, scale):
    """A changed flag was told and had no effect."""
    resumed = LossScale(*after)
    resumed.load(LossScale(*before).state())
    assert resumed.value() == scale


def test_an_adapting_loss_scale_goes_on():
    before, after = LossScale("dynamic", True), LossScale("dynamic", True)
    before.scale.assign(64.0)
    before.clean_steps.assign(7)
    after.load(before.state())
    assert after.state() == {"scale": 64, "clean_steps": 7, "dynamic": True}
    # Older checkpoints do not say whether it adapted.
    after.load({"scale": 32.0, "clean_steps": 1})
    assert after.value() == 32
    after.load({"scale": 1.0, "clean_steps": 0})  # of a run in float32
    assert after.value() == 32
