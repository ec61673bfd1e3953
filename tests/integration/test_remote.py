"""A run whose folder is at a URL: train, resume, evaluate and predict in ram://.

TensorFlow's RAM file system has the same interface as gs://, but exists in one process only, so
all modes run in this process. It has no fsync, and pathlib cannot reach it.
"""

import hashlib
import json

import numpy as np
import pytest

from convoy.runtime.run_folder import checkpoint, which_checkpoint
from convoy.runtime.settings.config import load_config
from convoy.runtime.train import confusion
from convoy.utils import files
from convoy.utils.files import (
    Remote,
    path_of,
    remove_tree,
    size_of,
    sync,
    truncate,
    write_atomically,
)
from convoy.utils.logging import make_json_logger
from main import main
from tests.integration.in_process import start


@pytest.fixture(scope="module")
def run(small_run, tiny):
    """The folder of a run like `trained` at a URL, stopped after one epoch of two."""
    folder = path_of("ram://bucket/runs/one")
    flags = (*small_run, "--max_epochs", "2", "--warmup_epochs", "1", "--data_dir", tiny)
    flags += ("--moving_average_decay", "0.9", "--enable_tensorboard")
    folder.flags = (*flags, "--model_dir", folder)
    folder.counted, draw = [], confusion.heat_map
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(confusion, "heat_map", lambda m: (folder.counted.append(m), draw(m))[1])
        start(*folder.flags, "--run_epochs", "1")
    return folder


def test_trackers_get_the_confusion_matrix_of_each_evaluation(run):
    """One is of the weights, one of their average; their diagonals give the log's top-1."""
    line = next(x for x in (run / "log.json").read_text().splitlines() if '"eval_ema_loss"' in x)
    found = json.loads(line.removeprefix("DLLL "))["data"]
    shares = [np.trace(matrix) / matrix.sum() for matrix in run.counted]
    names = ("eval_accuracy_top_1", "eval_ema_accuracy_top_1")
    assert shares == pytest.approx([found[name] for name in names])
    assert [matrix.sum() for matrix in run.counted] == [53, 53]


@pytest.mark.slow
def test_the_report_is_made_from_the_complete_log(tiny, small_run, monkeypatch):
    """Object stores show what was written after the last upload only once the file is closed."""
    pytest.importorskip("matplotlib", reason="the extra report is not installed")
    write, close = files._Raw.write, files._Raw.close

    def keep(raw, content):
        raw.kept = getattr(raw, "kept", b"") + bytes(content)
        return len(content)

    def upload(raw):
        if not raw.closed and getattr(raw, "kept", b""):
            write(raw, raw.kept)
        close(raw)

    monkeypatch.setattr(files._Raw, "write", keep)
    monkeypatch.setattr(files._Raw, "close", upload)
    folder = path_of("ram://bucket/runs/reported")
    flags = ("--mode", "train", "--max_epochs", "1", "--warmup_epochs", "0", "--training_report")
    flags += ("--report_images", "0", "--no_checkpoints", "--data_dir", tiny)
    start(*small_run, *flags, "--model_dir", folder)
    assert "finished after 1 epochs" in (folder / "report.html").read_text()


def test_training_leaves_checkpoints_log_and_events_at_the_url(run):
    assert isinstance(run, Remote)
    (saved,) = checkpoint.complete_checkpoints(run)
    assert saved.parent == run / "checkpoints"
    marker = json.loads((saved / "COMPLETE.json").read_text())
    assert set(marker) == {"config.yaml", "ema.safetensors", "model.safetensors",
                           "optimizer.safetensors", "state.json"}  # fmt: skip
    for name, facts in marker.items():
        content = (saved / name).read_bytes()
        assert facts == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert which_checkpoint.best(run) == saved
    log = (run / "log.json").read_text().splitlines()
    assert all(line.startswith("DLLL {") for line in log)
    assert any('"step": []' in line for line in log), "the log must end with a summary"
    assert load_config(run / "config.yaml").model_dir == str(run)
    events = list((run / "tensorboard").glob("events*"))
    assert events
    assert events[0].size() > 100
    assert not list(run.glob(".write-test*"))


@pytest.mark.slow
def test_a_run_at_a_url_resumes_evaluates_and_predicts_like_a_local_one(
    run, trained, photos, tiny, capsys
):
    start(*run.flags, "--resume_checkpoint")
    said = capsys.readouterr().out
    assert "resuming from ram://bucket/runs/one/checkpoints/step-00000007" in said
    pair = [checkpoint.read(checkpoint.latest(folder)) for folder in (run, trained.model_dir)]
    for part in ("model", "ema", "optimizer"):
        ours, theirs = (getattr(contents, part) for contents in pair)
        assert ours.keys() == theirs.keys()
        for name, array in ours.items():
            np.testing.assert_array_equal(array, theirs[name], err_msg=name)
    assert pair[0].state["step"] == 14

    evaluated = []
    for folder in (run, trained.model_dir):
        start("--mode", "eval", "--model_dir", folder, "--data_dir", tiny, "--checkpoint", "last",
              "--weights", "raw")  # fmt: skip
        evaluated.append(figures(capsys.readouterr().out))
    assert len(evaluated[0]) == 3
    assert evaluated[0] == evaluated[1]

    start("--mode", "predict", "--model_dir", run, "--predict_dir", photos)
    start("--mode", "predict", "--model_dir", trained.model_dir, "--predict_dir", photos,
          "--output", run / "local")  # fmt: skip
    for ending in ("csv", "jsonl"):
        here, there = ((run / f"{name}.{ending}").read_bytes() for name in ("predictions", "local"))
        assert here == there
        assert here.count(b"\n") == 12 + (ending == "csv")


def figures(text):
    names = ("eval_loss", "eval_accuracy")
    return [line for line in text.splitlines() if line.startswith(names)]


def refused(capsys, *args):
    with pytest.raises(SystemExit):
        main([str(arg) for arg in args])
    return " ".join(capsys.readouterr().err.split())


def test_a_damaged_or_unfinished_checkpoint_at_a_url_is_ignored(run):
    saved = checkpoint.latest(run)
    contents = checkpoint.read(saved)
    other = path_of("ram://bucket/runs/two")
    contents.state["step"] = 5
    first = checkpoint.save(other, contents)
    contents.state["step"] = 6
    second = checkpoint.save(other, contents)
    (second / "model.safetensors").write_bytes((first / "model.safetensors").read_bytes()[:-1])
    assert checkpoint.latest(other) == first
    (first / "COMPLETE.json").unlink()
    assert checkpoint.latest(other) is None
    which_checkpoint.prune(other, keep_last=1, keep_best=0)
    assert not list((other / "checkpoints").glob("step-*"))


def test_a_log_at_a_url_continues_after_an_incomplete_line():
    path = path_of("ram://bucket/log.json")
    for number in range(2):
        log = make_json_logger(path, append=True)
        log.log((), {"number": number})
        log.close()
        with path.open("a") as stream:
            stream.write('DLLL {"half')
    lines = path.read_text().splitlines()
    assert [line.count("number") for line in lines] == [1, 1, 0]


def test_remote_files_behave_like_pathlibs(tmp_path):
    for folder in (tmp_path / "a", path_of("ram://files/a")):
        assert not folder.exists()
        assert list(folder.glob("*")) == []
        folder.mkdir(parents=True)
        file = folder / "é.txt"
        write_atomically(file, "old and long")
        write_atomically(file, "grüß\n")
        assert file.read_text() == "grüß\n"
        assert size_of(file) == len("grüß\n".encode())
        assert sorted(folder.iterdir()) == [file]
        assert (file.name, file.parent, file.with_name("b")) == ("é.txt", folder, folder / "b")
        with file.open("ab") as stream:
            stream.write(b"x" * 3_000_000)
        truncate(file, 2_000_000)
        with file.open("rb") as stream:
            assert stream.read(3) == b"gr\xc3"
            assert len(stream.read()) == 2_000_000 - 3
        with pytest.raises(FileNotFoundError):
            (folder / "none").read_bytes()
        with pytest.raises(FileNotFoundError):
            (folder / "none").unlink()
        (folder / "none").unlink(missing_ok=True)
        sync(file)
        remove_tree(folder)
        assert not file.exists()


def test_a_url_that_cannot_be_written_is_refused_with_a_message(run, tiny, capsys):
    start(*run.flags, "--model_dir", "nowhere://bucket/run", code=1)
    message = " ".join(capsys.readouterr().err.split())
    assert "--model_dir nowhere://bucket/run cannot be written" in message
    assert "Traceback" not in message
    assert "already holds checkpoints" in refused(capsys, *run.flags)
    new = ("--model_dir", "ram://new", "--pretrained_from_file", "gs://bucket/run")
    assert "not a local path" in refused(capsys, *run.flags, *new)
