"""Flags that a mode does not use are named, and refused if the result would be another one."""

import ast
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from convoy.runtime.command_line.cli import parse
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flag_facts import used_in
from convoy.runtime.settings.modes import MODES, TRAINING_MODES
from tests.runtime.fitted_run import FittedRun

ROOT = Path(__file__).resolve().parents[3]
USED_BY = {f.name: set(f.metadata["modes"]) for f in fields(Config)}

# The code of some modes alone. Settings that it reads must be declared as used in one of them.
CODE = {
    "predict": {"predict", "eval"},
    "export": {"export", "predict"},
    "evaluate": {"eval"},
    "report": {"report", *TRAINING_MODES},
    "benchmark": {"training_benchmark", "inference_benchmark"},
    "describe": {"summary", *TRAINING_MODES},  # it foresees the memory of training
    "train": set(TRAINING_MODES),
    "trackers": set(TRAINING_MODES),
}


@pytest.fixture
def said(capsys):
    """Parses a command line; returns what it says about flags without effect."""

    def run(*args):
        parse([str(arg) for arg in args])
        lines = " ".join(capsys.readouterr().err.split()).split("convoy: ")
        return "; ".join(line.strip() for line in lines if " nothing with" in line)

    return run


@pytest.fixture(scope="module")
def run(tints, tmp_path_factory):
    """Flags of a mode that applies a run with a checkpoint."""
    folder = tmp_path_factory.mktemp("idle") / "run"
    fitted = FittedRun(tints, "train", 8, "rgby")
    fitted.save(folder, fitted.weights(np.zeros((fitted.features.shape[1], 4))))
    return "--model_dir", str(folder)


def test_every_flag_names_modes_that_exist():
    assert all(modes and modes <= MODES.keys() for modes in USED_BY.values())


@pytest.mark.parametrize("folder", CODE)
def test_what_the_code_of_a_mode_reads_is_declared_as_used_there(folder):
    read = set()
    for file in (ROOT / "runtime" / folder).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("config"):
                read.add(node.attr)
    read &= USED_BY.keys()
    assert read
    assert not {name for name in read if not USED_BY[name] & CODE[folder]}


def test_a_conversion_uses_what_says_where_and_how_to_write():
    assert used_in("convert") == {
        *("mode", "recipe", "model_dir", "verbose", "intraop_threads", "interop_threads"),
        *("arch", "image_size", "padding", "checkpoint", "weights", "weight_names", "output"),
        *("pretrained", "pretrained_from_file", "pretrained_partial", "overwrite"),
    }


def test_training_names_flags_of_other_modes(said, folders):
    new = ("--data_dir", folders, "--model_dir", folders / "new")
    line = said(*new, "--checkpoint", "last", "--predict_dir", "photos")
    assert line == "--checkpoint and --predict_dir do nothing with --mode train_and_eval"
    assert said(*new, "--output", "x").startswith("--output does nothing with")


def test_training_says_which_flags_it_keeps_for_later(said, folders):
    new = ("--data_dir", folders, "--model_dir", folders / "new", "--label_file", "names.txt")
    kept = "do nothing with --mode train; kept for the modes that apply its checkpoint"
    assert said("train", *new, "--top_k", "3") == f"--label_file and --top_k {kept}"
    assert said("train", *new, "--checkpoint", "last") == (
        f"--checkpoint does nothing with --mode train; --label_file {kept.replace('do ', 'does ')}"
    )


def test_evaluation_names_flags_of_predictions_and_training(said, run):
    flags = ("--flip_tta", "--output", "x", "--top_k", "3", "--overwrite")
    line = said("eval", *run, *flags, "--class_weights", "balanced", "--sampling", "sqrt")
    assert line == (
        "--flip_tta, --output, --top_k, --overwrite, --class_weights and --sampling do nothing"
        " with --mode eval"
    )


def test_flags_that_repeat_the_runs_values_or_come_from_a_file_are_silent(said, run, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("flip_tta: true\nmax_epochs: 7\n")
    same = ("--class_weights", "none", "--max_epochs", "300")
    assert said("eval", *run, *same) == ""
    assert said("eval", *run, "--config", recipe) == ""
    assert "--max_epochs" in said("eval", *run, "--max_epochs", "7")


def test_foreseeing_memory_is_silent_about_the_flags_of_the_run(said):
    assert "--optimizer" in said("summary", "--optimizer", "adamw")
    assert said("summary", "--memory", "--optimizer", "adamw", "--model_dir", "x") == ""


def test_one_image_and_a_page_about_one_run_write_no_file_of_your_choice(said, run, photos):
    image = ("--image", photos / "0-0.jpg", "--output", "x", "--predict_formats", "csv")
    assert said("predict", *run, *image).startswith("--output and --predict_formats do nothing")
    assert said("predict", *run, "--predict_dir", photos, "--output", "x") == ""


def test_resuming_from_an_older_checkpoint_is_refused_with_the_way_to_do_it(refused, run):
    resume = ("--resume_checkpoint", *run)
    message = refused(*resume, "--checkpoint", "step-00000001")
    assert "--checkpoint step-00000001: --resume_checkpoint continues from the newest" in message
    assert "--pretrained_from_file" in message
    assert "--model_dir" in message
