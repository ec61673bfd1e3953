"""Which program computes predict's answers."""

from dataclasses import replace

import numpy as np
import pytest

from convoy.runtime.predict import choice
from convoy.runtime.predict.choice import Choice, choose
from convoy.runtime.run_folder import checkpoint
from convoy.runtime.run_folder.marker import weights_sha256
from convoy.runtime.settings.config import Config
from convoy.utils.errors import ConfigError
from tests.onnx_bytes import metadata, network

NAMES = ["cat", "dog"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of one checkpoint with a moving average, and its ONNX export; ONNX Runtime exists."""
    monkeypatch.setattr(choice, "find_spec", lambda name: name)
    monkeypatch.setattr(choice, "visible_gpus", lambda: 0)
    state = {"step": 14, "epoch": 2, "offset": 0, "class_names": NAMES, "better_weights": "ema"}
    arrays = {"model": {"w": np.zeros(3)}, "ema": {"w": np.ones(3)}}
    folder = checkpoint.save(tmp_path, checkpoint.Checkpoint(**arrays, state=state))
    (tmp_path / "export").mkdir()

    def export(weights="ema", **changes):
        sha = {"weights_sha256": weights_sha256(folder, weights)}
        about = metadata(**(sha | changes))
        file = tmp_path / "export" / "model.onnx"
        file.write_bytes(network(np.eye(3, 2), about=about))
        return file

    export()
    return export


@pytest.fixture
def config(tmp_path):
    return Config(mode="predict", model_dir=str(tmp_path), image_size=32)


def test_auto_takes_the_export_of_the_checkpoint(run, config):
    file = run()
    assert choose(config) == Choice(file, NAMES)
    assert choose(replace(config, engine="onnx")) == Choice(file, NAMES)
    assert choose(replace(config, weights="ema")) == Choice(file, NAMES)
    assert choose(replace(config, engine="tensorflow")) == Choice(None)


@pytest.mark.parametrize(
    ("changes", "exported", "why"),
    [
        ({"weights": "raw"}, {}, "made of step-00000014 .* not of the raw weights of step-0000001"),
        ({}, {"weights": "raw"}, "not of the ema weights of step-00000014"),
        ({}, {"weights_sha256": None}, "export again with --overwrite, or name the file itself"),
        ({"image_size": 48}, {}, r"takes images of 32 px, not --image_size 48"),
        ({}, {"preprocessing": {}}, "does not say how to prepare images"),
        ({"checkpoint": "step-00000099"}, {}, "--checkpoint step-00000099 does not exist"),
        ({"model_dir": "gs://bucket/run"}, {}, "read from local folders alone"),
        ({"model_dir": "nowhere"}, {}, r"there is no nowhere/export/model\.onnx .*--export_format"),
        ({"pretrained_from_file": "w.keras"}, {}, r"w\.keras is no ONNX file"),
    ],
)
def test_auto_falls_back_to_tensorflow_with_a_reason_and_onnx_is_refused_with_it(
    run, config, changes, exported, why
):
    run(**exported)
    config = replace(config, **changes)
    found = choose(config)
    assert found.file is None
    assert found.lacks_export == ("no ONNX file" in why or "there is no" in why)
    with pytest.raises(ConfigError, match=f"--engine onnx: .*{why}"):
        choose(replace(config, engine="onnx"))
    assert f"--engine onnx: {found.why_not}"


def test_auto_leaves_a_gpu_to_tensorflow(run, config, monkeypatch):
    monkeypatch.setattr(choice, "visible_gpus", lambda: 1)
    assert choose(config) == Choice(None, why_not="there is a GPU")
    assert choose(replace(config, engine="onnx")).file


def test_a_missing_program_is_named_with_its_extra(run, config, monkeypatch):
    monkeypatch.setattr(choice, "find_spec", lambda name: None if name == "onnxruntime" else name)
    assert "ONNX Runtime is not installed: pip install" in choose(config).why_not
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    words = r"TensorFlow is not installed \(pip .*cpu.*, and ONNX Runtime cannot be used: .*predict"
    with pytest.raises(ConfigError, match=words):
        choose(config)


def test_a_named_file_is_used_as_it_is(run, config):
    file = str(run(weights_sha256=None))
    assert choose(replace(config, pretrained_from_file=file)).file.samefile(file)
