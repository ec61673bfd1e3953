"""Checkpoints are complete or absent, damaged ones are skipped, and saved ones survive errors."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from convoy.runtime.run_folder import checkpoint, marker, which_checkpoint
from convoy.runtime.run_folder.arrays import assign, variables_to_arrays
from convoy.runtime.run_folder.checkpoint import CheckpointError
from convoy.runtime.run_folder.marker import sha256
from convoy.runtime.settings.config import Config
from tests.runtime.run_folder.saving import DAMAGE, contents, flip_a_byte, save


def mark_again(path, name):
    """Updates the marker after a file was changed."""
    content, file = json.loads((path / "COMPLETE.json").read_text()), path / name
    content[name] = {"size": file.stat().st_size, "sha256": sha256(file)}
    (path / "COMPLETE.json").write_text(json.dumps(content))


@pytest.mark.parametrize("size", [1, 100_000])
def test_a_checkpoint_is_read_as_it_was_saved(tmp_path, size):
    saved = contents(7, size)
    path = checkpoint.save(tmp_path, saved)
    assert path == tmp_path / "checkpoints" / "step-00000007"
    read = checkpoint.read(path)
    for name in ("model", "ema", "optimizer"):
        want, got = getattr(saved, name), getattr(read, name)
        assert set(got) == set(want)
        for key, array in want.items():
            assert got[key].dtype == array.dtype
            np.testing.assert_array_equal(got[key], array)
    assert read.state == saved.state | {"format": 1}
    assert read.config == saved.config


def test_only_safetensors_json_and_yaml_are_written(tmp_path):
    (path,) = save(tmp_path, 3)
    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json", ".yaml"}
    content = json.loads((path / "COMPLETE.json").read_text())
    assert set(content) == {file.name for file in path.iterdir()} - {"COMPLETE.json"}


def test_saving_a_step_again_replaces_only_a_damaged_checkpoint(tmp_path):
    (path,) = save(tmp_path, 3)
    before = (path / "COMPLETE.json").stat().st_ino
    save(tmp_path, 3)
    assert (path / "COMPLETE.json").stat().st_ino == before
    flip_a_byte(path / "model.safetensors")
    save(tmp_path, 3)
    assert checkpoint.is_complete(path, checksums=True)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_checkpoint_is_skipped_and_refused_when_named(tmp_path, damage):
    older, newer = save(tmp_path, 10, 20)
    damage(newer)
    assert checkpoint.latest(tmp_path) == older
    assert which_checkpoint.resolve(tmp_path, "last") == older
    with pytest.raises(CheckpointError, match="step-00000020"):
        checkpoint.read(newer)
    damage(older)
    assert checkpoint.latest(tmp_path) is None
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        which_checkpoint.resolve(tmp_path, "last")


def test_resuming_a_run_with_only_damaged_checkpoints_is_an_error(tmp_path):
    from convoy.runtime.train.state import find_saved

    said: list[str] = []
    config = Config(model_dir=str(tmp_path))
    assert find_saved(config, said.append) is None  # nothing saved yet: a new run
    older, newer = save(tmp_path, 10, 20)
    flip_a_byte(newer / "optimizer.safetensors")
    assert find_saved(config, said.append).path == older
    assert len(said) == 1
    flip_a_byte(older / "model.safetensors")
    with pytest.raises(CheckpointError, match="is damaged, as listed above"):
        find_saved(config, said.append)


def test_other_files_and_folders_are_not_checkpoints_and_are_not_pruned(tmp_path):
    (tmp_path / "checkpoints" / "step-00000099").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-notes.txt").write_text("mine")
    (tmp_path / "checkpoints" / "backup").mkdir()
    assert checkpoint.latest(tmp_path) is None
    (path,) = save(tmp_path, 5)
    assert checkpoint.complete_checkpoints(tmp_path) == [path]
    which_checkpoint.prune(tmp_path)
    assert (tmp_path / "checkpoints" / "step-notes.txt").exists()
    assert (tmp_path / "checkpoints" / "backup").exists()
    with pytest.raises(CheckpointError, match="does not exist"):
        which_checkpoint.resolve(tmp_path, str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match="is not a complete checkpoint"):
        which_checkpoint.resolve(tmp_path, str(tmp_path))


def test_a_full_disk_is_an_error_and_earlier_checkpoints_survive(small_disk):
    (first,) = save(small_disk, 1)
    with pytest.raises(CheckpointError, match="No space left on device") as error:
        checkpoint.save(small_disk, contents(2, size=100_000))
    assert "earlier checkpoints are untouched" in str(error.value)
    assert "--model_dir" in str(error.value)
    assert checkpoint.latest(small_disk) == first
    checkpoint.read(first)
    assert list((small_disk / "checkpoints").glob("step-*2")) == [], "a partial checkpoint was left"
    (second,) = save(small_disk, 2)
    assert checkpoint.latest(small_disk) == second, "with enough space the same step is saved"


def test_a_disk_that_fills_up_leaves_every_listed_checkpoint_readable(small_disk):
    (first,) = save(small_disk, 1)
    sizes = range(1_000, 100_000, 9_001)
    for step, size in enumerate(sizes, 2):
        try:
            checkpoint.save(small_disk, contents(step, size))
        except CheckpointError:
            break
        which_checkpoint.prune(small_disk, keep_last=10**6)
    assert first in checkpoint.complete_checkpoints(small_disk)
    for path in checkpoint.complete_checkpoints(small_disk):
        checkpoint.read(path)


def test_a_full_disk_is_an_error_before_training(small_disk):
    checkpoint.check_writable(small_disk)
    with pytest.raises(OSError, match="No space"):
        (small_disk / "filler").write_bytes(b"\0" * 2_000_000)
    with pytest.raises(CheckpointError, match=r"--model_dir .* cannot be written \(No space"):
        checkpoint.check_writable(small_disk)
    assert os.listdir(small_disk) == ["filler"]


def test_a_read_only_disk_is_an_error_and_earlier_checkpoints_survive(small_disk):
    (first,) = save(small_disk, 1)
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    assert subprocess.run(remount).returncode == 0
    with pytest.raises(CheckpointError, match=r"cannot be written \(Read-only file system"):
        checkpoint.check_writable(small_disk)
    with pytest.raises(CheckpointError, match="Read-only file system"):
        save(small_disk, 2)
    assert checkpoint.latest(small_disk) == first


def test_a_model_dir_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CheckpointError, match="cannot be written"):
            checkpoint.check_writable(folder)
        with pytest.raises(CheckpointError, match="could not save"):
            save(folder, 1)
    assert (tmp_path / "file").read_text() == "not a folder"


def test_a_folder_that_cannot_be_listed_is_an_error_with_the_reason(tmp_path, monkeypatch):
    (tmp_path / "checkpoints").mkdir()

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "glob", refuse)
    with pytest.raises(CheckpointError, match=r"cannot be read \(Permission denied\)"):
        checkpoint.latest(tmp_path)
    monkeypatch.undo()


def test_ctrl_c_during_a_save_leaves_no_partial_checkpoint(tmp_path, monkeypatch):
    (first,) = save(tmp_path, 1)
    monkeypatch.setattr(marker, "sync", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert checkpoint.latest(tmp_path) == first
    (second,) = save(tmp_path, 2)
    assert checkpoint.latest(tmp_path) == second


def test_python_tags_in_a_checkpoints_config_are_refused_and_not_executed(tmp_path):
    from convoy.runtime.settings.config import load_config
    from convoy.utils.errors import ConfigError

    proof = tmp_path / "executed"
    saved = contents(1)
    saved.config = f"arch: !!python/object/apply:os.mkdir ['{proof}']\n"
    path = checkpoint.save(tmp_path, saved)
    assert checkpoint.read(path).config == saved.config
    with pytest.raises(ConfigError, match="has the tag !!python/object"):
        load_config(path / "config.yaml")
    command = [sys.executable, "main.py", "--mode", "summary", "--config", path / "config.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    command = [sys.executable, "main.py", "--mode", "predict", "--model_dir", tmp_path]
    done = subprocess.run([*command, "--predict_dir", tmp_path], capture_output=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert not proof.exists()


def test_weights_that_are_a_pickle_are_refused(tmp_path):
    import pickle

    (path,) = save(tmp_path, 1)
    (path / "model.safetensors").write_bytes(pickle.dumps({"a": 1}))
    mark_again(path, "model.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.read(path)


def test_a_checkpoint_of_a_newer_version_is_refused(tmp_path):
    (path,) = save(tmp_path, 1)
    file = path / "state.json"
    file.write_text(json.dumps({"step": 1, "format": 99}))
    mark_again(path, "state.json")
    with pytest.raises(CheckpointError, match="newer version"):
        checkpoint.read(path)


def test_assigning_weights_that_do_not_fit_names_them_and_changes_nothing():
    import keras

    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2, name="d")])
    before = variables_to_arrays(model.weights)
    other = {name: array + 1 for name, array in before.items()}
    for wrong, match in (
        ({k: v for k, v in other.items() if "bias" not in k}, "lacks weight .*bias"),
        (other | {k: v[:1] for k, v in other.items() if "bias" in k}, "bias has shape"),
    ):
        with pytest.raises(CheckpointError, match=match):
            assign(model.weights, wrong, "weight")
        for name, array in variables_to_arrays(model.weights).items():
            np.testing.assert_array_equal(array, before[name])
    assign(model.weights, other, "weight")
    for name, array in variables_to_arrays(model.weights).items():
        np.testing.assert_array_equal(array, other[name])


def test_a_file_is_hashed_once_until_it_changes(tmp_path, monkeypatch):
    (path,) = save(tmp_path, 3)
    read, opened = type(path).open, []

    def count(self, *args, **more):
        opened.append(self)
        return read(self, *args, **more)

    monkeypatch.setattr(type(path), "open", count)
    file = path / "model.safetensors"
    for _ in range(2):
        assert checkpoint.is_complete(path, checksums=True)
    assert opened.count(file) == 2, "a file changed just now is hashed each time"
    monkeypatch.setattr(marker, "_SETTLED", -1.0)
    for _ in range(3):
        assert checkpoint.is_complete(path, checksums=True)
    assert opened.count(file) == 3
    flip_a_byte(file)
    assert not checkpoint.is_complete(path, checksums=True)
    assert not checkpoint.is_complete(path, checksums=True)
