"""`--mode lr_find`: on loss curves whose best learning rate is known, and as a program."""

import json
import shlex

import numpy as np
import pytest

from convoy.runtime.command_line.cli import parse
from convoy.runtime.run_folder.next_commands import without
from convoy.runtime.settings.lr_find_checks import LEAST_UPDATES
from convoy.runtime.train.lr_find import EXPLODED, Curve, suggest, sweep
from convoy.runtime.train.step import StepResult
from main import main


class Slope:
    """A stand-in for `Step` whose loss is a function of the learning rate."""

    def __init__(self, loss):
        self._loss = loss

    def __call__(self, batches, rate):
        loss = self._loss(rate)
        sums = np.array([2 * loss, 0, 0, 2])
        return StepResult(sums, sums, finite_loss=bool(np.isfinite(loss)), finite=True)


def endless():
    while True:
        yield []


def test_a_sweep_ends_when_the_loss_explodes_or_is_not_finite():
    """The suggested rate is where the loss falls fastest over the logarithm of the rate."""

    def loss(rate):  # falls by a sigmoid around 1e-3, and rises from 0.1 on
        return 1 + 2 / (1 + (rate / 1e-3) ** 2) + (rate / 0.1) ** 2

    curve = sweep(Slope(loss), endless(), 300)
    assert len(curve.rates) == len(curve.losses) == len(curve.smoothed) < 300
    assert curve.smoothed[-1] > EXPLODED * min(curve.smoothed) >= curve.smoothed[-2]
    assert curve.losses == [loss(rate) for rate in curve.rates]
    found = suggest(curve)
    assert found.steepest == pytest.approx(1e-3, rel=0.8)  # smoothing lags by ten updates
    assert 1e-3 < found.lowest < 0.1
    assert found.steepest <= found.lowest / 3
    assert found.tenth == pytest.approx(found.lowest / 10)
    curve = sweep(Slope(lambda rate: 2.0 if rate < 1e-2 else np.nan), endless(), 100)
    assert max(curve.rates) < 1e-2
    assert suggest(curve) is None
    assert suggest(Curve([1e-6], [2.0], [2.0])) is None


@pytest.fixture
def find(small_run, tints, tmp_path, capfd):
    def start(*more, code=0):
        flags = [*small_run, "--data_dir", tints, "--model_dir", tmp_path / "run"]
        flags += ["--mode", "lr_find", "--image_size", "32", *more]
        assert main([str(flag) for flag in flags]) == code
        printed = capfd.readouterr()
        return printed.out + printed.err

    return start


def test_lr_find_suggests_a_rate_with_a_command_and_leaves_no_checkpoint(find, tmp_path):
    text = find("--prof", "60", "--optimizer", "adamw", "--epsilon", "1e-7", "--lr_init", "7")
    folder = tmp_path / "run"
    assert sorted(path.name for path in folder.iterdir()) == ["lr_find.json", "lr_find.png"]
    found = json.loads((folder / "lr_find.json").read_text())
    assert (folder / "lr_find.png").read_bytes().startswith(b"\x89PNG")
    rates, suggestion = found["rates"], found["suggestion"]
    assert rates[0] == 1e-6
    assert np.ptp(np.diff(np.log(rates))) < 1e-9
    assert suggestion["steepest"] in rates
    # --lr_init refers to --lr_base_batch 128 images, and an update has 16.
    assert suggestion["lr_init"] == pytest.approx(suggestion["steepest"] * 8, rel=0.05)
    command = text.replace("\\\n", " ").partition("to train with it:\n")[2].splitlines()[0]
    config = parse(shlex.split(command)[2:])
    assert (config.mode, config.prof) == ("train_and_eval", None)
    assert config.lr_init == suggestion["lr_init"]
    assert config.model_dir == str(folder)


@pytest.mark.slow
def test_a_loss_that_falls_at_no_rate_is_an_error(find, tmp_path):
    text = find("--prof", "24", "--hflip", "0", "--grad_clip_value", "1e-30", "--optimizer", "sgd",
                "--weight_decay", "0", code=1)  # fmt: skip
    assert "convoy: the loss fell at no rate from 1e-06 to 10" in text
    assert json.loads((tmp_path / "run" / "lr_find.json").read_text())["suggestion"] is None


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--prof", LEAST_UPDATES - 1), "--prof 19: a range test needs 20 updates"),
        (("--resume_checkpoint",), "--resume_checkpoint has no effect in --mode lr_find"),
    ],
)
def test_too_few_updates_and_resuming_are_refused(flags, said, refused, tiny, tmp_path):
    place = ("--data_dir", tiny, "--model_dir", tmp_path)
    assert said in refused("--mode", "lr_find", *place, *flags)


def test_without_removes_flags_together_with_their_values():
    args = ["--mode", "lr_find", "--prof=5", "--use_amp", "--lr_init", "-1", "--arch", "x"]
    assert without(args, "mode", "prof", "lr_init") == ["--use_amp", "--arch", "x"]


@pytest.mark.slow
def test_two_ranks_find_a_rate_for_the_batch_of_both(convoy, small_run, tints, tmp_path):
    flags = (*small_run, "--data_dir", tints, "--model_dir", tmp_path, "--mode", "lr_find")
    flags += ("--optimizer", "adamw", "--epsilon", "1e-7", "--prof", "60", "--image_size", "32")
    text = convoy(*flags, "--nproc", "2").text
    assert "it falls fastest at" in text
    assert json.loads((tmp_path / "lr_find.json").read_text())["images_per_update"] == 32
