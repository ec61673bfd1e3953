"""The checkpoints on the disk after an epoch's end that something disturbs: a failed evaluation, a
signal, an error, a rare `--save_checkpoint_freq`. Real runs; real signals to this process.
"""

import hashlib
import os
import shutil
import signal

import keras
import pytest

from convoy.runtime.command_line.cli import parse
from convoy.runtime.report import training_page
from convoy.runtime.run_folder import checkpoint, which_checkpoint
from convoy.runtime.train import trainer
from convoy.utils.logging import RunLog

OFTEN = ("--checkpoint_every_minutes", "1e-9", "--gather_checkpoints")  # after every step
STEPS = 7  # an epoch: 97 images in batches of 16
PREEMPTED, SOME_FAILED = 75, 3


@pytest.fixture
def run(small_run, tiny, tmp_path, run_main):
    """Runs with model_dir `name`; returns the exit code and the output joined to one line."""

    def start(name, *more, data=tiny):
        flags = (*small_run, "--max_epochs", "2", "--warmup_epochs", "0")
        flags += ("--moving_average_decay", "0.9", "--data_dir", data)
        return run_main(*flags, "--model_dir", tmp_path / name, *more)

    return start


def states(model_dir):
    """Returns the state of each checkpoint by the name of its folder."""
    found = checkpoint.complete_checkpoints(model_dir)
    return {path.name: checkpoint.read(path).state for path in found}


def contents(folder):
    """Returns the SHA-256 of each file in the folder by its relative path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def tell(monkeypatch, place, name, when=lambda *args: True):
    """Makes `place.name` send SIGTERM to this process before it runs, where `when` is true."""
    right = getattr(place, name)

    def signalled(*args, **more):
        if when(*args):
            os.kill(os.getpid(), signal.SIGTERM)
        return right(*args, **more)

    monkeypatch.setattr(place, name, signalled)


@pytest.mark.slow
def test_a_timed_save_at_an_epochs_last_step_is_also_the_epochs_checkpoint(run, tmp_path):
    """Resuming the finished run evaluates nothing again."""
    code, text = run("run", *OFTEN)
    assert code == 0, text
    found = states(tmp_path / "run")
    assert list(found) == [f"step-{step:08d}" for step in range(1, 2 * STEPS + 1)]
    ends = [found["step-00000007"], found["step-00000014"]]
    assert [(state["epoch"], state["offset"]) for state in ends] == [(1, 0), (2, 0)]
    assert [state["score"] for state in found.values() if state["offset"]] == [None] * 12
    for state in ends:
        raw, ema = (state["metrics"][f"eval_{kind}accuracy_top_1"] for kind in ("", "ema_"))
        assert state["score"] == max(raw, ema)
        assert state["better_weights"] == ("ema" if ema >= raw else "raw")
    best = max(ends, key=lambda state: state["score"])
    assert which_checkpoint.best(tmp_path / "run").name == f"step-{best['step']:08d}"
    assert ends[1]["best"]["value"] == best["score"]
    before = contents(tmp_path / "run" / "checkpoints")
    code, text = run("run", *OFTEN, "--resume_checkpoint")
    assert code == 0
    assert "nothing left to train: 2 epochs are done" in text
    assert "evaluated" not in text
    assert contents(tmp_path / "run" / "checkpoints") == before


@pytest.mark.slow
def test_broken_validation_images_prevent_the_evaluation_not_the_training(
    run, tiny, writers, tmp_path
):
    data = tmp_path / "data"
    shutil.copytree(tiny, data)
    file = data / "validation-00000-of-00002"
    whole = file.read_bytes()
    digits = writers.digits(150)[97::2]
    digits[3], digits[20] = (b"no picture", 1), (b"", 2)
    writers.records(file, digits)
    code, text = run("run", data=data)
    assert code == SOME_FAILED, text
    assert "epoch 1 was not evaluated: 2 of 53 evaluation images cannot be read" in text
    assert text.count(f"{file}, record at byte") == 2, "each is named once"
    assert "epoch 2 was not evaluated: the same images cannot be read" in text
    assert "--max_bad_eval_examples 2" in text
    assert "2 evaluations failed" in text
    found = states(tmp_path / "run")
    assert [(s["epoch"], s["score"]) for s in found.values()] == [(1, None), (2, None)]

    some = ("--resume_checkpoint", "--max_bad_eval_examples")
    shutil.copytree(tmp_path / "run", tmp_path / "less")
    code, text = run("less", *some, "2", data=data)
    assert code == 0, text
    assert "epoch 2 was saved but not evaluated: evaluating it now" in text
    assert "without 2 unreadable images" in text
    state = states(tmp_path / "less")["step-00000014"]
    assert state["metrics"]["eval_unreadable"] == 2
    assert state["metrics"]["eval_examples"] == 51

    file.write_bytes(whole)
    code, text = run("run", "--resume_checkpoint", data=data)
    assert code == 0, text
    assert "epoch 2 was saved but not evaluated: evaluating it now" in text
    assert states(tmp_path / "run")["step-00000014"]["score"] is not None
    assert which_checkpoint.best(tmp_path / "run").name == "step-00000014"


def test_a_wrong_validation_label_prevents_the_evaluation_not_the_training(
    run, tiny, writers, tmp_path
):
    data = tmp_path / "data"
    shutil.copytree(tiny, data)
    digits = writers.digits(150)[97::2]
    digits[3] = (digits[3][0], 77)
    writers.records(data / "validation-00000-of-00002", digits)
    code, text = run("run", "--max_bad_eval_examples", "9", data=data)
    assert code == SOME_FAILED, text
    assert "epoch 2 was not evaluated" in text
    assert len(states(tmp_path / "run")) == 2


def test_a_signal_in_an_epochs_last_step_saves_the_completed_epoch(run, tmp_path, monkeypatch):
    tell(monkeypatch, trainer, "is_left_out", lambda state, _: state.step == STEPS - 1)
    code, text = run("run")
    assert code == PREEMPTED, text
    assert "stopped by SIGTERM after step 7; everything is saved" in text
    (state,) = states(tmp_path / "run").values()
    assert (state["epoch"], state["offset"], state["score"]) == (1, 0, None)
    monkeypatch.undo()
    # The command at the end of the output resumes the run.
    config = f"--config {tmp_path / 'run' / 'config.yaml'}"
    assert text.endswith(f"{config} \\ --resume_checkpoint")
    code, text = run("run", *config.split(), "--resume_checkpoint")
    assert code == 0
    assert text.count("epoch 1 was saved but not evaluated: evaluating it now") == 1
    first, last = states(tmp_path / "run").values()
    assert None not in (first["score"], last["score"])


def test_a_signal_in_an_evaluation_saves_an_epoch_that_was_not_due(run, tmp_path, monkeypatch):
    tell(monkeypatch, trainer.Evaluations, "make")
    code, text = run("run", "--save_checkpoint_freq", "5")
    assert code == PREEMPTED, text
    assert "stopped by SIGTERM while epoch 1 was evaluated; everything is saved" in text
    (state,) = states(tmp_path / "run").values()
    assert (state["epoch"], state["score"]) == (1, None)


@pytest.mark.parametrize(
    ("module", "name", "when"),
    [
        ("convoy.runtime.data.open_split", "find_source", "before its first step"),
        ("convoy.runtime.train.start", "new_state", "before its first step"),
        pytest.param(
            *("convoy.runtime.report.training_page", "report_training"),
            "while its report was written",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_signal_before_and_after_training_stops_the_run_with_75(
    run, tmp_path, monkeypatch, module, name, when
):
    import importlib

    tell(monkeypatch, importlib.import_module(module), name)
    code, text = run("run", "--max_epochs", "1")
    assert code == PREEMPTED, text
    assert f"stopped by SIGTERM {when}" in text
    assert "Traceback" not in text
    assert not (tmp_path / "run" / "in_use.json").exists()
    assert len(checkpoint.complete_checkpoints(tmp_path / "run")) == (name == "report_training")


def test_a_callback_that_fails_at_an_epochs_end_does_not_lose_the_epoch(small_run, tiny, tmp_path):
    class Fails(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise ValueError("of the user's")

    flags = (*small_run, "--max_epochs", "2", "--warmup_epochs", "0", "--save_checkpoint_freq", "1")
    config = parse([str(f) for f in (*flags, "--data_dir", tiny, "--model_dir", tmp_path / "run")])
    with pytest.raises(ValueError, match="of the user's"):
        trainer.Trainer(config, RunLog(), [Fails()]).run()
    (state,) = states(tmp_path / "run").values()
    assert (state["epoch"], state["offset"]) == (1, 0)


@pytest.mark.slow
def test_the_best_and_the_last_epoch_are_saved_whatever_the_frequency(run, tmp_path):
    code, text = run("run", "--save_checkpoint_freq", "5", "--max_epochs", "3")
    assert code == 0, text
    found = states(tmp_path / "run")
    best = which_checkpoint.best(tmp_path / "run")
    assert found[best.name]["score"] == max(state["score"] for state in found.values())
    assert "step-00000021" in found
    code, text = run("prof", "--save_checkpoint_freq", "5", "--prof", STEPS, "--mode", "train")
    assert code == 0, text
    (state,) = states(tmp_path / "prof").values()
    assert (state["epoch"], state["offset"]) == (1, 0), "the step where --prof ends is saved"
    assert "last: epoch 1 of 2, not evaluated (--mode train) in training top-1 " in text
    assert f"in {tmp_path / 'prof' / 'checkpoints' / 'step-00000007'} to label a folder" in text
    assert "best: " not in text
    assert "--mode eval" in text, "there is a validation split"
    assert state["better_weights"] == "ema", "nothing was evaluated"


def test_a_refused_resume_leaves_every_file_unchanged(run, trained, tmp_path):
    shutil.copytree(trained.model_dir, tmp_path / "run")
    before = contents(tmp_path / "run")
    for more in (["--image_size", "48"], ["--optimizer", "adam"]):
        code, text = run("run", "--resume_checkpoint", *more)
        assert code == 2, text
        assert more[0] in text or "image_size" in text
        assert contents(tmp_path / "run") == before
    assert training_page.state_of(training_page.read_run(str(tmp_path / "run")), 0.0).startswith(
        "finished"
    )
