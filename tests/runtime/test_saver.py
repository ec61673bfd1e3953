"""Saving in the background, on real disks."""

import threading

import numpy as np
import pytest

from convoy.runtime import checkpoint
from convoy.runtime.checkpoint import Checkpoint, CheckpointError
from convoy.runtime.saver import Saver
from main import main


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


def test_a_save_in_flight_is_never_half_visible(tmp_path, monkeypatch):
    """A reader looks on while each file, the marker and the folder go to the disk."""
    seen, sync = [], checkpoint.sync

    def look(path):
        there = (tmp_path / "checkpoints" / "step-00000002").is_dir()
        seen.append((path.name, there, checkpoint.resolve(tmp_path, "last").name))
        sync(path)

    saver = Saver(tmp_path)
    saver.save(contents(1))
    saver.settle()
    monkeypatch.setattr(checkpoint, "sync", look)
    saver.save(contents(2))
    saver.finish()
    assert seen == [
        ("config.yaml", True, "step-00000001"),
        ("model.safetensors", True, "step-00000001"),
        ("state.json", True, "step-00000001"),
        ("step-00000002", True, "step-00000002"),  # the marker is there: it is whole
    ]


@pytest.mark.parametrize(
    ("flags", "epochs"),
    [(("--no_checkpoints",), []), (("--gather_checkpoints", "--keep_checkpoints", "1"), [1, 2, 3])],
)
def test_a_run_keeps_what_the_flags_say(small_run, tiny, tmp_path, flags, epochs):
    args = (*small_run, "--max_epochs", "3", "--warmup_epochs", "0", "--mode", "train", *flags)
    assert main([*args, "--data_dir", str(tiny), "--model_dir", str(tmp_path / "run")]) == 0
    assert names(tmp_path / "run") == [f"step-{7 * epoch:08d}" for epoch in epochs]
