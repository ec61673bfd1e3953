"""Which evaluations a report makes side by side, and their settings. Needs no TensorFlow."""

from contextlib import nullcontext

import numpy as np
import pytest

from convoy.runtime.command_line.cli import parse
from convoy.runtime.evaluate.side_by_side import check_fit, variants
from convoy.runtime.run_folder import checkpoint
from convoy.runtime.run_folder.checkpoint import CheckpointError
from convoy.runtime.settings.config import Config, defaults
from convoy.utils.errors import ConfigError


@pytest.fixture
def run(tmp_path):
    """Writes a run's folder with a tiny checkpoint for each step, and returns the folder."""

    def make(name, *steps, classes=2, class_names=None, ema=True, **settings):
        config = Config(**(defaults("efficientnet-test") | settings))
        for step in steps:
            arrays = {"x": np.zeros(1, np.float32)}
            state = {"step": step, "model": {"num_classes": classes}, "class_names": class_names}
            saved = checkpoint.Checkpoint(arrays, state=state, config=config.to_yaml())
            saved.ema = arrays if ema else {}
            checkpoint.save(tmp_path / name, saved)
        return tmp_path / name

    return make


@pytest.fixture
def asked(folders):
    """Returns the name and config of each evaluation for a command line."""

    def ask(*args):
        flags = ("--mode", "eval", "--report", "--data_dir", folders, *args)
        return [(v.name, v.config) for v in variants(parse([str(flag) for flag in flags]))]

    return ask


def test_a_plain_report_makes_one_evaluation_with_the_runs_settings(run, asked):
    folder = run("a", 1, image_size=64)
    ((name, config),) = asked("--model_dir", folder)
    assert (name, config.image_size, config.weights) == ("", 64, "auto")


def test_every_set_of_weights_is_evaluated_at_every_size(run, asked):
    folder = run("a", 1, image_size=64)
    both = ("--weights", "both", "--report_image_sizes", "64, 96")
    found = asked("--model_dir", folder, *both)
    assert [name for name, _ in found] == ["raw, 64 px", "raw, 96 px", "ema, 64 px", "ema, 96 px"]
    assert [(c.weights, c.image_size) for _, c in found[1:3]] == [("raw", 96), ("ema", 64)]


def test_another_run_keeps_its_own_size_and_crop(run, asked):
    one = run("one", 1, 2, image_size=64)
    two = run("two", 5, image_size=96, eval_crop="resize", crop_padding=8)
    earlier = one / "checkpoints/step-00000001"
    found = asked("--model_dir", one, "--report_checkpoints", f"{earlier},{two}")
    names, configs = zip(*found, strict=True)
    assert names[0] == "best"
    assert names[1] == "one/step-00000001"
    assert names[2].endswith("/two")
    assert [c.image_size for c in configs] == [64, 64, 96]
    assert [c.crop_padding for c in configs] == [32, 32, 8]
    assert [c.eval_crop for c in configs] == ["crop", "crop", "resize"]
    assert configs[1].checkpoint == str(earlier)
    assert configs[2].checkpoint == str(two / "checkpoints/step-00000005")


def test_a_flag_on_the_command_line_applies_to_all_runs(run, asked):
    one, two = run("one", 1, image_size=64), run("two", 5, image_size=96, crop_padding=8)
    flags = ("--model_dir", one, "--report_checkpoints", two, "--crop_padding", "16")
    assert [(c.image_size, c.crop_padding) for _, c in asked(*flags)] == [(64, 16), (96, 16)]


def test_one_given_size_and_crop_apply_to_all_runs(run, asked):
    """They do even where they equal the first run's own settings."""
    one, two = run("one", 1, image_size=64), run("two", 5, image_size=96, crop_padding=8)
    flags = ("--report_image_sizes", "64", "--crop_pct", "0.67")
    found = asked("--model_dir", one, "--report_checkpoints", two, *flags)
    assert [(c.image_size, c.crop_padding) for _, c in found] == [(64, 31)] * 2


def test_crop_pct_is_applied_to_each_image_size(run, asked):
    folder = run("a", 1)
    flags = ("--model_dir", folder, "--report_image_sizes", "64,128", "--crop_pct", "0.875")
    assert [c.crop_padding for _, c in asked(*flags)] == [9, 18]


def test_an_image_size_that_the_architecture_cannot_take_is_refused(run, asked, capsys):
    with pytest.raises(SystemExit):
        asked("--model_dir", run("a", 1), "--report_image_sizes", "64,0")
    said = " ".join(capsys.readouterr().err.split())
    assert "--report_image_sizes 64,0: efficientnet-test needs images of at least" in said


def test_a_missing_checkpoint_is_refused_with_its_flag(run):
    folder = run("a", 1)
    config = Config(mode="eval", report=True, model_dir=str(folder), report_checkpoints="gone")
    with pytest.raises(ConfigError, match="--report_checkpoints gone does not exist"):
        variants(config)


def test_runs_of_the_same_name_get_longer_distinct_names(run, asked):
    one, two = run("exp1/runs/b0", 1), run("exp2/runs/b0", 1)
    names = [name for name, _ in asked("--model_dir", run("a", 1), "--report_checkpoints", two)]
    assert names == ["best", "runs/b0"]
    found = asked("--model_dir", run("a", 1), "--report_checkpoints", f"{one},{two}")
    assert [name for name, _ in found] == ["best", "exp1/runs/b0", "exp2/runs/b0"]


@pytest.mark.parametrize("which", ["last", "{a}", "{a}/checkpoints/../checkpoints/step-00000001"])
def test_the_same_checkpoint_under_two_names_is_refused(run, asked, capsys, which):
    folder = run("a", 1)
    with pytest.raises(SystemExit):
        asked("--model_dir", folder, "--report_checkpoints", which.format(a=folder))
    message = " ".join(capsys.readouterr().err.split())
    assert "each once, not" in message
    assert "step-00000001 twice" in message


def test_a_weight_file_can_be_compared_with_a_runs_best(run):
    config = Config(**(defaults("efficientnet-test") | {"mode": "eval", "report": True}))
    config = config.with_(model_dir=str(run("a", 1)), report_checkpoints="best")
    found = variants(config.with_(pretrained_from_file="weights/w.h5"))
    assert [(v.name, v.config.pretrained_from_file) for v in found] == [
        ("weights/w.h5", "weights/w.h5"),
        ("best", None),
    ]


@pytest.mark.parametrize(
    ("other", "settings", "error", "words"),
    [
        ({}, {}, None, ""),
        ({"ema": False}, {}, None, ""),
        ({"ema": False}, {"weights": "both"}, CheckpointError, "two/.* no moving average"),
        ({"classes": 3}, {}, ConfigError, "two/.* has 3 classes, and .*one/.* 2"),
        ({"class_names": ["cat", "cow"]}, {}, ConfigError, "class 1 of .*two/.* 'cow'.*'dog'"),
        ({"class_names": ["cat", "cow"]}, {"label_file": "names"}, None, ""),
    ],
)
def test_models_that_cannot_be_compared_are_refused_before_evaluating(
    run, other, settings, error, words
):
    one, two = run("one", 1, class_names=["cat", "dog"]), run("two", 1, **other)
    config = Config(**(defaults("efficientnet-test") | settings))
    config = config.with_(mode="eval", report=True, model_dir=str(one), report_checkpoints=str(two))
    with pytest.raises(error, match=words) if error else nullcontext():
        check_fit(variants(config))
