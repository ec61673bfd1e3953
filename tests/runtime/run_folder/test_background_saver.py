"""Saving checkpoints in the background, on real disks."""

import threading

import numpy as np
import pytest

from convoy.runtime.run_folder import checkpoint, marker, which_checkpoint
from convoy.runtime.run_folder.background_saver import Saver
from convoy.runtime.run_folder.checkpoint import Checkpoint, CheckpointError
from convoy.runtime.run_folder.ownership import TakenOver
from convoy.utils import files
from main import main


def state(step):
    return {"step": step, "epoch": step, "offset": 0, "score": None}


def contents(step, size=1000):
    model = {"w": np.full(size, step, np.float32)}
    return Checkpoint(model=model, state=state(step), config="arch: x\n")


def names(folder):
    return [path.name for path in checkpoint.complete_checkpoints(folder)]


def test_a_slow_disk_delays_the_next_save_but_not_training(tmp_path, monkeypatch):
    disk = threading.Event()
    write = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *args: (disk.wait(60), write(*args))[1])
    saver = Saver(tmp_path)
    saver.save(contents(1))
    assert names(tmp_path) == [], "save() returns while it is being written"
    disk.set()
    saver.save(contents(2))
    assert "step-00000001" in names(tmp_path), "the second save waits for the first"
    saver.finish()
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_the_newest_and_the_best_are_kept(tmp_path):
    saver = Saver(tmp_path, keep_last=2, keep_best=2)
    scores = [0.5, 0.9, 0.7, None, 0.8, 0.1, None]
    best = -1.0
    for step, score in enumerate(scores, 1):
        is_best = score is not None and score > best
        best = score if is_best else best
        saver.save(contents(step))
        if score is not None:
            saver.add_score(state(step), {"score": score}, {"value": score} if is_best else None)
    saver.finish()
    assert names(tmp_path) == [f"step-0000000{n}" for n in (2, 5, 6, 7)]
    assert which_checkpoint.best(tmp_path).name == "step-00000002"


def test_keep_last_none_keeps_every_checkpoint(tmp_path):
    saver = Saver(tmp_path, keep_last=None)
    for step in range(1, 6):
        saver.save(contents(step))
    saver.finish()
    assert len(names(tmp_path)) == 5


def test_a_full_disk_during_training_is_one_warning_and_later_saves_work(small_disk):
    warnings = []
    saver = Saver(small_disk, warn=warnings.append)
    saver.save(contents(1))
    saver.save(contents(2, size=400_000))  # 1.6 MB on a disk of 1 MB
    saver.save(contents(3))
    saver.finish()
    assert len(warnings) == 1
    assert "No space left" in warnings[0]
    assert "Training continues" in warnings[0]
    assert names(small_disk) == ["step-00000001", "step-00000003"]


def test_a_full_disk_at_the_end_of_the_run_is_an_error(small_disk):
    warnings = []
    saver = Saver(small_disk, warn=warnings.append)
    saver.save(contents(1))
    saver.save(contents(2, size=400_000))
    with pytest.raises(CheckpointError, match="No space left"):
        saver.finish()
    assert names(small_disk) == ["step-00000001"]


def test_a_failed_save_is_repeated_at_the_end_of_the_run(small_disk):
    filler = small_disk / "filler"
    filler.write_bytes(b"\0" * 900_000)
    saver = Saver(small_disk, warn=lambda text: filler.unlink())
    saver.save(contents(1, size=100_000))
    saver.finish()
    assert names(small_disk) == ["step-00000001"]


def failing(monkeypatch, name, times=1):
    """Makes a function that the saver calls fail `times` times with ENOSPC.

    Returns the list of failures that are left.
    """
    module = checkpoint if hasattr(checkpoint, name) else which_checkpoint
    left, right = [None] * times, getattr(module, name)

    def fail(*args, **more):
        if left:
            left.pop()
            raise OSError(28, "No space left on device")
        return right(*args, **more)

    monkeypatch.setattr(module, name, fail)
    return left


@pytest.mark.parametrize("name", ["add_score", "mark_best", "prune"])
def test_a_failure_to_write_a_score_or_prune_is_a_warning_and_is_retried(
    tmp_path, monkeypatch, name
):
    warnings, left = [], failing(monkeypatch, name)
    saver = Saver(tmp_path, warn=warnings.append)
    saver.save(contents(1))
    saver.add_score(state(1), {"score": 0.5}, {"value": 0.5})
    saver.save(contents(2))
    saver.finish()
    assert not left
    (text,) = warnings
    assert "No space left on device" in text
    assert "Training continues and will try again" in text
    assert names(tmp_path) == ["step-00000001", "step-00000002"]
    best = which_checkpoint.best(tmp_path)
    assert best.name == "step-00000001", "the next save repeats what failed"
    assert checkpoint.read_state(best)["score"] == 0.5


@pytest.mark.parametrize("name", ["add_score", "mark_best", "prune"])
def test_a_persistent_failure_to_write_a_score_or_prune_stays_a_warning(
    tmp_path, monkeypatch, name
):
    warnings = []
    failing(monkeypatch, name, times=9)
    saver = Saver(tmp_path, warn=warnings.append)
    saver.save(contents(1))
    saver.add_score(state(1), {"score": 0.5}, {"value": 0.5})
    saver.finish()
    assert warnings
    assert names(tmp_path) == ["step-00000001"]


def test_a_score_is_added_after_its_failed_save_was_repeated(small_disk):
    filler = small_disk / "filler"
    filler.write_bytes(b"\0" * 900_000)
    warnings = []
    saver = Saver(small_disk, warn=warnings.append)
    saver.save(contents(1, size=100_000))
    saver.add_score(state(1), {"score": 0.5}, {"value": 0.5})
    saver.settle()
    assert len(warnings) == 1
    filler.unlink()
    saver.finish()
    assert which_checkpoint.best(small_disk).name == "step-00000001"


def test_a_checkpoint_of_an_earlier_launch_can_get_its_score(tmp_path):
    older, newer = checkpoint.save(tmp_path, contents(4)), checkpoint.save(tmp_path, contents(5))
    saver = Saver(tmp_path)
    saver.add_score(state(4), {"score": 0.25}, {"value": 0.25})
    saver.add_score(state(6), {"score": 0.5}, {"value": 0.5})  # has no checkpoint
    saver.finish()
    assert checkpoint.read_state(older)["score"] == 0.25
    assert checkpoint.read_state(newer)["score"] is None
    assert which_checkpoint.best(tmp_path) == older


def test_a_run_that_lost_its_folder_to_another_saves_nothing(tmp_path):
    def taken():
        raise TakenOver("another run")

    saver = Saver(tmp_path, check=taken)
    saver.save(contents(1))
    with pytest.raises(TakenOver):
        saver.settle()
    assert names(tmp_path) == []
    saver.abandon()


def test_readers_see_a_checkpoint_only_once_its_marker_is_written(tmp_path, monkeypatch):
    """A reader looks each time a file, the marker or the folder is synced to the disk."""
    seen, sync = [], files.sync

    def look(path):
        there = (tmp_path / "checkpoints" / "step-00000002").is_dir()
        seen.append((path.name, there, which_checkpoint.resolve(tmp_path, "last").name))
        sync(path)

    saver = Saver(tmp_path)
    saver.save(contents(1))
    saver.settle()
    for module in (checkpoint, marker):
        monkeypatch.setattr(module, "sync", look)
    saver.save(contents(2))
    saver.finish()
    assert seen == [
        ("config.yaml", True, "step-00000001"),
        ("model.safetensors", True, "step-00000001"),
        ("state.json", True, "step-00000001"),
        ("step-00000002", True, "step-00000002"),  # with the marker it is complete
        ("checkpoints", True, "step-00000002"),
    ]


@pytest.mark.parametrize(
    ("flags", "epochs"),
    [(("--no_checkpoints",), []), (("--gather_checkpoints", "--keep_checkpoints", "1"), [1, 2, 3])],
)
def test_a_run_follows_the_flags_for_keeping_checkpoints(small_run, tiny, tmp_path, flags, epochs):
    args = (*small_run, "--max_epochs", "3", "--warmup_epochs", "0", "--mode", "train", *flags)
    assert main([*args, "--data_dir", str(tiny), "--model_dir", str(tmp_path / "run")]) == 0
    assert names(tmp_path / "run") == [f"step-{7 * epoch:08d}" for epoch in epochs]
