"""`--train_batch_size auto`: the batches that are tried, the choice, and the run that follows."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from convoy.runtime.command_line.cli import configure, parse
from convoy.runtime.fitted import auto_batch
from convoy.runtime.fitted.auto_batch import TrialError, Trials, _on_gpu, _on_host, candidates
from convoy.runtime.fitted.rules import AUTO_MOST, STEPS_PER_EPOCH, auto_batches
from convoy.runtime.settings.config import Config, load_config
from main import main

GIB = 2**30


@pytest.mark.parametrize(
    ("images", "parts", "most"),
    [(97, 1, 8), (97, 2, 4), (97, 16, 1), (320, 1, 16), (1400, 1, 64), (9000, 1, 256),
     (1_300_000, 8, AUTO_MOST), (9000, 3, 64)],
)  # fmt: skip
def test_the_largest_batch_tried_leaves_an_epoch_enough_updates(images, parts, most):
    sizes = auto_batches(images, parts)
    assert sizes == [2**i for i in range(len(sizes))]
    assert sizes[-1] == most
    assert images // (most * parts) >= STEPS_PER_EPOCH or most * parts <= 16


def test_with_optimizer_batch_size_only_its_divisors_are_tried():
    config = Config(optimizer_batch_size=96)
    assert candidates(config, 2) == [1, 2, 3, 4, 6, 8, 16, 24, 48]


def memory(base, each, most=float("inf")):
    """Returns a function for the peak memory in bytes of a batch, and the list of batches tried.

    The function returns None, as if training had been killed, above `most` bytes.
    """
    tried = []

    def peak(batch):
        tried.append(batch)
        taken = base + each * batch
        return None if taken > most else int(taken)

    return peak, tried


def test_on_a_host_batches_that_would_not_fit_are_not_tried():
    """Memory is extrapolated from small batches, as the kernel would kill one that is too large."""
    sizes = [2**i for i in range(11)]
    peak, tried = memory(GIB, GIB / 16)
    assert _on_host(sizes, peak, 5.5 * GIB) == (
        64,
        "128 images take about 9.0 GiB, and 5.5 GiB may be taken",
    )
    assert tried == [8, 16, 64]
    peak, tried = memory(GIB, GIB / 16)
    assert _on_host(sizes, peak, 100 * GIB) == (1024, "")
    assert tried == [8, 16, 1024]
    peak, tried = memory(GIB, GIB)
    assert _on_host(sizes, peak, 3.5 * GIB)[0] == 2
    assert max(tried) == 8
    assert _on_host(sizes, memory(GIB, GIB)[0], GIB)[0] is None
    # A batch takes more than extrapolated, and the kernel kills the trial.
    peak, tried = memory(GIB, GIB / 16, most=4 * GIB)
    assert _on_host(sizes, peak, 9.5 * GIB)[0] == 32
    assert tried == [8, 16, 128, 64, 32]


def test_on_a_gpu_the_largest_batch_that_runs_is_chosen():
    peak, tried = memory(0, 1, most=100)
    assert _on_gpu([8, 16, 32, 64, 128], peak) == (64, "128 do not fit into the GPU's memory")
    assert tried == [128, 64]
    assert _on_gpu([128], peak) == (None, "")


def settings(tiny, tmp_path, **more):
    given = {"arch": "efficientnet-test", "data_dir": str(tiny), "model_dir": str(tmp_path / "run")}
    return configure(**given, **more)


@pytest.mark.parametrize(("how", "flag"), [(None, "--train_batch_size"), ("blocks", "--recompute")])
def test_a_failed_trial_names_the_flag_that_asked_for_it(how, flag, tiny, tmp_path, monkeypatch):
    answer = [sys.executable, "-c", """input(); print('{"error": "labels.txt is empty."}')"""]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    monkeypatch.setattr(Trials, "_start", lambda self: subprocess.Popen(answer, **pipes))
    with Trials(settings(tiny, tmp_path)) as trials, pytest.raises(TrialError) as failed:
        trials.peak(8, how)
    assert str(failed.value) == (
        f"{flag} auto: a trial with a batch of 8 failed: labels.txt is empty.\n"
        f"Give {flag} a value to train without trials."
    )


@pytest.mark.slow
def test_a_trial_runs_in_a_child_whose_death_means_no_fit(tiny, tmp_path):
    config = settings(tiny, tmp_path)
    with Trials(config) as trials:
        small, large = trials.peak(8), trials.peak(64)
        assert 2**27 < small < large < 2**33
        trials._child.kill()  # as the kernel does when memory runs out
        assert trials.peak(8) is None
    assert not (tmp_path / "run").exists(), "a trial must leave no model_dir"


@pytest.mark.slow
def test_a_run_with_auto_equals_one_given_the_found_batch_size(tiny, tmp_path, monkeypatch, capfd):
    """Its config.yaml has the number, and a resumed run uses that."""
    args = ["--arch", "efficientnet-test", "--data_dir", str(tiny), "--model_dir"]
    args += [str(tmp_path / "run"), "--no-training_report", "--max_epochs", "1"]
    monkeypatch.setattr(auto_batch, "Trials", Few)
    assert main([*args, "--train_batch_size", "auto"]) == 0
    printed = capfd.readouterr()
    assert "--train_batch_size auto is 4: 8 images take too much" in printed.err
    assert "4 images an update, 25 updates an epoch" in printed.out
    found = load_config(tmp_path / "run" / "config.yaml")
    assert found.train_batch_size == 4
    assert found == settings(tiny, tmp_path / "other", train_batch_size=4, max_epochs=1).with_(
        model_dir=found.model_dir, training_report=False
    )
    again = parse([*args, "--train_batch_size", "auto", "--resume_checkpoint"])
    assert again.train_batch_size == 4, "a resumed run does not measure again"


class Few:
    """A stand-in for `Trials` with memory for four images."""

    def __init__(self, config):
        self.config = config

    def __enter__(self):
        return SimpleNamespace(peak=lambda batch: GIB // 100 if batch <= 4 else None)

    def __exit__(self, *error):
        pass


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--train_batch_size", "large"), "takes a whole number or auto, not large"),
        (("--train_batch_size", "auto", "--mode", "training_benchmark"), "give a number"),
    ],
)
def test_other_words_than_auto_and_auto_in_a_benchmark_are_refused(
    flags, said, refused, tiny, tmp_path
):
    assert said in refused("--data_dir", tiny, "--model_dir", tmp_path, *flags)


def test_an_error_says_that_not_even_one_image_fits(tiny, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(auto_batch, "free_memory", lambda: 1000)
    monkeypatch.setattr(auto_batch, "Trials", Few)
    args = ["--arch", "efficientnet-test", "--data_dir", str(tiny), "--model_dir"]
    assert main([*args, str(tmp_path / "run"), "--train_batch_size", "auto"]) == 1
    assert "no batch fits into memory" in capfd.readouterr().err


@pytest.mark.slow
def test_ranks_of_a_host_share_one_measurement(convoy, small_run, tiny, tmp_path):
    flags = (*small_run, "--data_dir", tiny, "--model_dir", tmp_path, "--mode", "train", "--nproc")
    flags += ("2", "--train_batch_size", "auto", "--max_epochs", "1", "--warmup_epochs", "0")
    text = convoy(*flags, "--steps_per_epoch", "2").text
    assert text.count("--train_batch_size auto is 4: more would leave an epoch fewer than 20") == 1
    assert "8 images an update (2 processes x 4 images)" in text
    assert load_config(tmp_path / "config.yaml").train_batch_size == 4
