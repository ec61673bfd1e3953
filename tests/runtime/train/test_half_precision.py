"""Runs in float16 with a dynamic loss scale, as on GPUs, computed on the CPU."""

import math

import numpy as np
import pytest
from safetensors.numpy import load_file

from convoy.runtime.run_folder import checkpoint
from convoy.runtime.train import loss_scale
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
