"""Runs on class folders with `--validation_fraction`, which holds out a part for validation."""

import os
import shutil

import pytest
import yaml

from convoy.runtime.command_line.cli import parse
from convoy.runtime.data.open_split import open_split
from convoy.runtime.run_folder import checkpoint
from main import main

TRAINED_ON, HELD_OUT = 63, 17  # as a hash of the files' names divides them


@pytest.fixture(scope="module")
def digits_in_folders(tmp_path_factory, writers):
    """80 digits in class folders, without splits."""
    root = tmp_path_factory.mktemp("divided") / "photos"
    for i, (pixels, label) in enumerate(writers.digits(80)):
        (root / str(label)).mkdir(parents=True, exist_ok=True)
        (root / str(label) / f"{i}.jpg").write_bytes(writers.jpeg(pixels))
    return root


@pytest.fixture(scope="module")
def divided(digits_in_folders, small_run, tmp_path_factory):
    """The model_dir of a run of two epochs that was resumed after the first."""
    model_dir = tmp_path_factory.mktemp("run") / "run"
    flags = [*small_run, "--data_dir", digits_in_folders, "--model_dir", model_dir]
    flags += ["--validation_fraction", 0.2, "--max_epochs", 2, "--early_stopping", 5]
    flags += ["--seed", 3, "--warmup_epochs", 0]
    assert main([*map(str, flags), "--run_epochs", "1"]) == 0
    assert main([*map(str, flags), "--resume_checkpoint"]) == 0
    return model_dir


@pytest.fixture
def results(log_lines):
    """Returns the evaluations in the log of a run's folder."""

    def read(folder):
        found = (line.get("data", {}) for line in log_lines(folder / "log.json"))
        return [data for data in found if "eval_examples" in data]

    return read


@pytest.mark.slow
def test_mode_eval_uses_the_part_that_the_run_held_out(divided, digits_in_folders, results, capfd):
    states = [checkpoint.read(p).state for p in checkpoint.complete_checkpoints(divided)]
    assert {state["data"]["train_examples"] for state in states} == {TRAINED_ON}
    assert {found["eval_examples"] for found in results(divided)} == {HELD_OUT}
    settings = yaml.safe_load((divided / "config.yaml").read_text())
    assert (settings["validation_fraction"], settings["validation_seed"]) == (0.2, 0)

    given = ["--mode", "eval", "--model_dir", str(divided), "--checkpoint", "last"]
    for more in ((), ("--data_dir", os.path.relpath(digits_in_folders)), ("--seed", "9")):
        capfd.readouterr()
        assert main([*given, *more]) == 0
        printed = capfd.readouterr().out
        assert f"validation: {HELD_OUT} images of 10 classes" in printed
        assert f"eval_loss {results(divided)[-1]['eval_loss']:.4f} nats" in " ".join(
            printed.split()
        )


def test_mode_eval_on_other_data_does_not_inherit_validation_fraction(
    divided, digits_in_folders, tmp_path, refused
):
    other = tmp_path / "other"
    shutil.copytree(digits_in_folders, other / "val")
    given = ("--mode", "eval", "--model_dir", divided, "--data_dir")
    assert parse([*map(str, given), str(other)]).validation_fraction is None
    shutil.copytree(digits_in_folders, tmp_path / "moved")
    said = refused(*given, tmp_path / "moved")
    assert f"put these into val there, as {tmp_path}/moved/val/<class>/" in said
    assert "a run held out, give that run's --validation_fraction" in said
    assert "--mode train" not in said
    again = [*map(str, given), str(tmp_path / "moved"), "--validation_fraction", "0.2"]
    assert parse(again).validation_fraction == 0.2


@pytest.mark.parametrize("other", [("--validation_fraction", 0.5), ("--validation_seed", 1)])
def test_resuming_with_another_held_out_part_is_refused(
    divided, digits_in_folders, small_run, other, capfd
):
    flags = [*small_run, "--data_dir", digits_in_folders, "--model_dir", divided]
    flags += ["--validation_fraction", 0.2, *other, "--max_epochs", 3, "--resume_checkpoint"]
    assert main([*map(str, flags)]) == 2
    said = " ".join(capfd.readouterr().err.split())
    assert "images that it was trained on would now be in its validation split" in said


def test_mode_train_uses_all_images_of_class_folders(
    digits_in_folders, small_run, tmp_path, refused
):
    given = [*small_run, "--data_dir", digits_in_folders, "--model_dir", tmp_path / "run"]
    assert "--validation_fraction 0.1 holds" in refused(*given)
    config = parse([*map(str, given), "--mode", "train"])
    assert open_split(config, "train").num_examples == HELD_OUT + TRAINED_ON
    (tmp_path / "val").symlink_to(digits_in_folders)
    for folder, says in ((tmp_path, "no train split"), (tmp_path / "val", "to be a split itself")):
        given = ("--data_dir", folder, "--model_dir", tmp_path / "run", "--mode", "train")
        assert says in refused(*given)


def test_mistakes_with_validation_fraction_are_refused(digits_in_folders, tmp_path, refused):
    given = ("--data_dir", digits_in_folders, "--model_dir", tmp_path / "run")
    assert "--validation_fraction 0.1 holds a part of each class out" in refused(*given)
    for fraction in (0, 1, -1, 2):
        says = refused(*given, "--validation_fraction", fraction)
        assert "--validation_fraction must be above 0 and below 1" in says
    split = tmp_path / "split"
    for name in ("train", "val"):
        shutil.copytree(digits_in_folders, split / name)
    given = ("--data_dir", split, "--model_dir", tmp_path / "run")
    says = refused(*given, "--validation_fraction", 0.1)
    assert f"{split}/val is there for validation: leave the flag out" in says


@pytest.mark.slow
def test_two_ranks_hold_out_the_same_images(
    convoy, digits_in_folders, small_run, results, tmp_path
):
    flags = [*small_run, "--data_dir", digits_in_folders, "--validation_fraction", 0.2]
    flags += ["--max_epochs", 1, "--warmup_epochs", 0, "--model_dir", tmp_path / "run"]
    convoy(*flags, np=2)
    assert {found["eval_examples"] for found in results(tmp_path / "run")} == {HELD_OUT}
    (saved,) = checkpoint.complete_checkpoints(tmp_path / "run")
    assert checkpoint.read(saved).state["data"]["train_examples"] == TRAINED_ON
