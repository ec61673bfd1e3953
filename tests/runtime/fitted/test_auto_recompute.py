"""`--recompute auto`: what is tried, the choice, and the run that follows."""

from types import SimpleNamespace

import pytest

from convoy.runtime.fitted import auto_recompute
from convoy.runtime.fitted.auto_batch import TrialError, Trials
from convoy.runtime.fitted.auto_recompute import least
from convoy.runtime.settings.config import Config, load_config
from convoy.runtime.settings.recomputation import share_of_first
from main import main

GIB = 2**30
B0 = Config(arch="efficientnet-b0", train_batch_size=32)


def memory(factor=1.0, norms=3.0):
    """Returns a function for the peak memory of a value, and the list of values tried.

    Blocks save what their share of the activations says, times `factor`.
    """
    shares, tried = share_of_first(B0), []

    def peak(how):
        tried.append(how)
        saved = {"none": 0.0, "norms": 0.0, "blocks": 1.0}.get(how)
        saved = min(1.0, factor * shares[how]) if saved is None else saved
        return int(GIB * (4.0 if how == "none" else norms - 2.0 * saved))

    return peak, tried


@pytest.mark.parametrize(
    ("room", "how", "tries"),
    [(4.5, "none", 1), (3.5, "norms", 2), (2.0, 4, 4), (1.0, "blocks", 3)],
)
def test_the_least_that_fits_is_chosen(room, how, tries):
    peak, tried = memory()
    found = least(B0, peak, room * GIB)
    assert found.how == how
    assert len(tried) == tries
    less = {"none": "it takes 4.0", "norms": "none takes 4.0"}.get(how, "norms takes 3.0")
    assert found.line().endswith(f"{how}: {less} GiB, and {room:.1f} GiB may be taken")


def test_more_blocks_are_tried_if_they_save_less_than_foreseen():
    peak, tried = memory(factor=0.7)
    found = least(B0, peak, 2.0 * GIB)
    assert tried[:4] == ["none", "norms", "blocks", 4]
    assert found.blocks > 4
    assert peak(found.how) <= 2.0 * GIB


def test_a_batch_that_does_not_fit_at_all_is_refused():
    with pytest.raises(
        TrialError, match=r"blocks takes 1\.0 GiB, and 0\.5 GiB may be taken; lower"
    ):
        least(B0, memory()[0], 0.5 * GIB)
    with pytest.raises(TrialError, match="blocks takes too much; lower --train_batch_size"):
        least(B0, lambda how: None, float("inf"))


class Few:
    """A stand-in for `Trials` with memory for what is computed again in one block."""

    def __init__(self, config):
        assert config.train_batch_size == 4

    def __enter__(self):
        return SimpleNamespace(peak=lambda batch, how: 100 if how in (1, "blocks") else None)

    def __exit__(self, *error):
        pass


def test_a_run_with_auto_trains_with_what_was_found(tiny, tmp_path, monkeypatch, capfd):
    args = ["--arch", "efficientnet-test", "--data_dir", str(tiny), "--model_dir"]
    args += [str(tmp_path / "run"), "--mode", "train", "--no-training_report", "--max_epochs", "1"]
    monkeypatch.setattr(auto_recompute, "Trials", Few)
    assert main([*args, "--train_batch_size", "4", "--recompute", "auto"]) == 0
    assert "convoy: --recompute auto is 1: norms takes too much" in capfd.readouterr().err
    assert load_config(tmp_path / "run" / "config.yaml").recompute == 1


def test_auto_in_a_benchmark_is_refused(refused, tiny, tmp_path):
    given = ("--mode", "training_benchmark", "--data_dir", tiny, "--model_dir", tmp_path)
    assert "give none, norms, blocks or a number" in refused(*given, "--recompute", "auto")


@pytest.mark.slow
def test_a_trial_with_recomputation_takes_less(tiny, tmp_path):
    given = {"arch": "efficientnet-b0", "image_size": 96, "data_dir": str(tiny)}
    config = Config(**given, model_dir=str(tmp_path / "run"), num_classes=10, recompute="auto")
    with Trials(config) as trials:
        none, blocks = (trials.peak(64, how) for how in ("none", "blocks"))
    assert blocks < 0.8 * none
