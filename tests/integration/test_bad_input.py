"""Broken data and full disks: a clear message, a non-zero exit code, and no saved data lost."""

import os
import shutil

import pytest

from convoy.runtime.run_folder import checkpoint
from tests.integration.in_process import run

NO_PICTURE = b"\xff\xd8\xff\xe0 this is no picture"


def said(capsys):
    """Returns the printed text as one line; it must contain no traceback."""
    printed = capsys.readouterr()
    text = " ".join((printed.out + printed.err).split())
    assert "Traceback" not in text
    return text


@pytest.fixture
def flags(small_run, tmp_path):
    """Flags of a run of one epoch into a new folder."""
    once = ("--max_epochs", "1", "--warmup_epochs", "0", "--model_dir", tmp_path / "run")
    return (*small_run, *once)


@pytest.fixture(scope="module")
def one_bad(writers, tmp_path_factory):
    """97 training images, one of which, in the second shard, is not an image."""
    examples = writers.digits(140)
    examples[31] = (NO_PICTURE, examples[31][1])
    return writers.dataset(tmp_path_factory.mktemp("bad"), examples[:97], examples[97:])


def test_an_unreadable_image_is_left_out_named_and_saved_in_the_checkpoint(
    flags, one_bad, tmp_path, capsys
):
    assert run(*flags, "--data_dir", one_bad, "--max_bad_examples", "1") == 0
    text = said(capsys)
    assert "train-00001-of-00002, record at byte" in text
    assert "1 unreadable" in text
    saved = checkpoint.read(checkpoint.latest(tmp_path / "run"))
    assert list(saved.state["bad_examples"])


@pytest.mark.slow
def test_too_many_unreadable_images_end_the_job_on_every_rank(convoy, flags, one_bad, tmp_path):
    """One rank meets the image; the other must not wait for it forever."""
    args = (*flags, "--data_dir", one_bad, "--max_bad_examples", "0")
    done = convoy(*args, np=2, code=None, timeout=120)
    assert done.code != 0
    assert "train-00001-of-00002, record at byte" in done.text
    assert "--max_bad_examples" in done.text
    assert checkpoint.latest(tmp_path / "run") is None


def test_an_unreadable_image_in_evaluation_is_an_error_with_its_place(
    trained, writers, tmp_path, capsys
):
    examples = writers.digits(40)
    examples[25] = (NO_PICTURE, 1)
    data = writers.dataset(tmp_path / "data", [], examples, shards=1)
    args = ("--mode", "eval", "--model_dir", trained.model_dir, "--data_dir", data)
    assert run(*args, "--log_filename", tmp_path / "log.json") == 1
    text = said(capsys)
    assert "validation-00000-of-00001, record at byte" in text
    assert "repair or remove it" in text


def test_a_truncated_file_is_refused_before_training(flags, tiny, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(tiny, data)
    file = data / "train-00001-of-00002"
    os.truncate(file, file.stat().st_size - 10)
    with pytest.raises(SystemExit) as exit_:
        run(*flags, "--data_dir", data)
    assert exit_.value.code == 2
    text = said(capsys)
    assert "train-00001-of-00002" in text
    assert "cut short" in text


def test_a_file_that_is_no_tfrecord_is_refused(flags, tiny, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(tiny, data)
    (data / "train-00000-of-00002").write_text("no records, only words and more words here\n" * 9)
    with pytest.raises(SystemExit) as exit_:
        run(*flags, "--data_dir", data)
    assert exit_.value.code == 2
    assert "train-00000-of-00002" in said(capsys)


def test_fewer_classes_than_the_labels_name_are_refused(flags, tiny, capsys):
    assert run(*flags, "--data_dir", tiny, "--num_classes", "5") in (1, 2)
    assert "--num_classes 5" in said(capsys)


def test_a_label_outside_the_classes_is_an_error(flags, tiny, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(tiny, data)
    (data / "labels.txt").unlink()
    assert run(*flags, "--data_dir", data, "--num_classes", "5") == 1
    text = said(capsys)
    assert "is outside --num_classes 5" in text
    assert "record at byte" in text


def test_classes_are_counted_from_the_labels_without_a_labels_file(flags, tiny, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(tiny, data)
    (data / "labels.txt").unlink()
    assert run(*flags, "--data_dir", data, "--prof", "1", "--mode", "train") == 0
    saved = checkpoint.read(checkpoint.latest(tmp_path / "run"))
    assert saved.state["model"]["num_classes"] == 10


def test_a_model_dir_that_cannot_be_written_is_an_error(small_run, tiny, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    model_dir = tmp_path / "file" / "run"
    assert run(*small_run, "--data_dir", tiny, "--model_dir", model_dir) == 1
    assert f"--model_dir {model_dir} cannot be written" in said(capsys)


@pytest.mark.slow
def test_a_model_dir_that_cannot_be_written_ends_every_rank_with_a_message(
    convoy, small_run, tiny, tmp_path
):
    (tmp_path / "file").write_text("in the way")
    args = (*small_run, "--data_dir", tiny, "--model_dir", tmp_path / "file" / "run")
    done = convoy(*args, np=2, code=None, timeout=120)
    assert done.code != 0
    assert "--model_dir" in done.text
    assert "cannot be written" in done.text
    assert "runner.py" not in done.text, "only horovodrun may print a traceback"


def test_a_disk_that_fills_up_during_training_keeps_the_earlier_checkpoint(
    trained, small_disk, capsys
):
    """The remaining space holds the first checkpoint but not the second."""
    one = checkpoint.latest(trained.model_dir)
    size = sum(file.stat().st_size for file in one.iterdir())
    (small_disk / "filler").write_bytes(b"\0" * int(2**20 - 1.6 * size))
    assert run(*trained.flags, "--model_dir", small_disk) == 1
    text = said(capsys)
    assert "earlier checkpoints are untouched" in text
    assert "No space left" in text
    assert "epoch 2/2 eval loss" in text, "training must continue to its end"
    saved = checkpoint.complete_checkpoints(small_disk)
    assert [path.name for path in saved] == ["step-00000007"]
    checkpoint.read(saved[0])


def test_a_result_that_cannot_be_printed_is_an_error(trained, tiny, tmp_path, monkeypatch, capsys):
    # Not into the run's own log, which other tests read.
    args = (
        "--pretrained_from_file",
        trained.model_dir,
        "--data_dir",
        tiny,
        "--model_dir",
        tmp_path,
    )
    with open("/dev/full", "w") as full, open(os.devnull, "w") as nothing:
        monkeypatch.setattr("sys.stdout", full)
        assert run("--mode", "eval", *args) == 1
        os.dup2(nothing.fileno(), full.fileno())  # otherwise closing it would fail
    assert "no space is left on a disk" in (text := said(capsys))
    assert "standard output" in text


def test_a_loss_that_is_not_finite_ends_training_and_names_the_layer(flags, tiny, tmp_path, capsys):
    args = ("--lr_init", "1e30", "--optimizer", "sgd", "--data_dir", tiny)
    assert run(*flags, *args) == 1
    text = said(capsys)
    assert "the training loss was not finite at step 2 (epoch 1)" in text
    assert "first in the output of layer " in text
    assert "--lr_init" in text
    assert checkpoint.latest(tmp_path / "run") is None
