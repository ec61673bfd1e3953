"""Saving in the background, on real disks."""

import threading

import numpy as np
import pytest

from runtime import checkpoint
from runtime.checkpoint import Checkpoint, CheckpointError
from runtime.saver import Saver


def contents(step, score=None, size=1000):
    state = {"step": step, "epoch": step, "score": score}
    return Checkpoint(model={"w": np.full(size, step, np.float32)}, state=state, config="arch: x\n")


def names(folder):
    return [path.name for path in checkpoint.complete_checkpoints(folder)]


def test_training_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    """A save that takes for ever holds up only the next one."""
    disk = threading.Event()
    write = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *args: (disk.wait(60), write(*args))[1])
    saver = Saver(tmp_path)
    saver.save(contents(1))
    assert names(tmp_path) == [], "it is being written while we are here"
    disk.set()
    saver.save(contents(2))
    assert "step-00000001" in names(tmp_path), "one at a time: the first has ended"
    saver.finish()
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_the_newest_and_the_best_are_kept(tmp_path):
    saver = Saver(tmp_path, keep_last=2, keep_best=2)
    scores = [0.5, 0.9, 0.7, None, 0.8, 0.1, None]
    best = -1.0
    for step, score in enumerate(scores, 1):
        is_best = score is not None and score > best
        best = score if is_best else best
        saver.save(contents(step, score), {"value": score} if is_best else None)
    saver.finish()
    assert names(tmp_path) == [f"step-0000000{n}" for n in (2, 5, 6, 7)]
    assert checkpoint.best(tmp_path).name == "step-00000002"


def test_everything_is_kept_when_asked(tmp_path):
    saver = Saver(tmp_path, keep_last=None)
    for step in range(1, 6):
        saver.save(contents(step))
    saver.finish()
    assert len(names(tmp_path)) == 5


def test_a_full_disk_is_a_warning_until_there_is_room_again(small_disk):
    warnings = []
    saver = Saver(small_disk, warn=warnings.append)
    saver.save(contents(1))
    saver.save(contents(2, size=400_000))  # 1.6 MB on a disk of one
    saver.save(contents(3))
    saver.finish()
    assert len(warnings) == 1
    assert "No space left" in warnings[0]
    assert "Training goes on" in warnings[0]
    assert names(small_disk) == ["step-00000001", "step-00000003"]


def test_what_cannot_be_kept_at_the_end_is_an_error(small_disk):
    warnings = []
    saver = Saver(small_disk, warn=warnings.append)
    saver.save(contents(1))
    saver.save(contents(2, size=400_000))
    with pytest.raises(CheckpointError, match="No space left"):
        saver.finish()
    assert names(small_disk) == ["step-00000001"]


def test_room_that_comes_back_before_the_end_is_used(small_disk):
    filler = small_disk / "filler"
    filler.write_bytes(b"\0" * 900_000)
    saver = Saver(small_disk, warn=lambda text: filler.unlink())
    saver.save(contents(1, size=100_000))
    saver.finish()
    assert names(small_disk) == ["step-00000001"]
