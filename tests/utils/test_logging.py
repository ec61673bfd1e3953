"""The run's log, read by code that shares nothing with the writer."""

import enum
import io
import json
import logging
import math
import os
import re
import signal
import subprocess
import sys
import types
from contextlib import closing
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from convoy.utils import logging as logging_module
from convoy.utils.logging import (
    TensorBoardWriter,
    make_json_logger,
    setup_logging,
)

ROOT = Path(__file__).parents[2]

# Taken from two lines that the original dllogger 1.1.0 wrote: the key order, and all times as
# text.
STAMP = (
    r'"timestamp": "\d{10}\.\d+", ',
    r'"elapsedtime": "[\d.e-]+", ',
    r'"datetime": "\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?[+-]\d\d:\d\d", ',
)
METADATA_LINE = re.compile(
    r"DLLL \{" + STAMP[0] + STAMP[1] + STAMP[2] + r'"type": "METADATA", "metric": "(\w+)", '
    r'"metadata": (\{.*\})\}$'
)
LOG_LINE = re.compile(
    r"DLLL \{" + STAMP[0] + STAMP[2] + STAMP[1] + r'"type": "LOG", "step": (.+?), '
    r'"data": (\{.*\})\}$'
)


def read(path):
    """Reads the file as a user's script would."""
    lines = path.read_text().splitlines()
    assert all(line.startswith("DLLL ") for line in lines)
    return [json.loads(line[5:]) for line in lines]


@pytest.fixture
def no_dllogger(monkeypatch):
    monkeypatch.setitem(sys.modules, "dllogger", None)


@pytest.fixture
def stub_dllogger(monkeypatch):
    """A module with dllogger's documented interface that records its calls."""
    calls = []

    class JSONStreamBackend:
        def __init__(self, verbosity, filename, append=False):
            self.verbosity = verbosity
            self.file = open(filename, "a" if append else "w")  # noqa: SIM115

    class Logger:
        def __init__(self, backends):
            self.backends = backends

        def log(self, step, data, verbosity=1):
            if self.backends[0].verbosity >= verbosity:
                calls.append((step, data))
                self.backends[0].file.write(f"{step}\n")

        def metadata(self, metric, metadata):
            calls.append((metric, metadata))

        def flush(self):
            self.backends[0].file.flush()

    module = types.ModuleType("dllogger")
    module.JSONStreamBackend, module.Logger = JSONStreamBackend, Logger
    module.Verbosity = types.SimpleNamespace(OFF=-1, DEFAULT=0, VERBOSE=1)
    monkeypatch.setitem(sys.modules, "dllogger", module)
    return calls


@pytest.mark.usefixtures("no_dllogger")
def test_lines_have_dlloggers_format(tmp_path):
    path = tmp_path / "made" / "log.json"
    log = make_json_logger(path)
    log.metadata("loss", "nat", ":.3f")
    log.metadata("epochs", None)
    log.parameters({"lr": 0.1, "seed": None})
    log.log((0, 1), {"loss": 1.5})
    log.log((), {"top1": 0.75})
    lines = path.read_text().splitlines()  # read before close: each line is flushed

    assert [METADATA_LINE.match(line)[1] for line in lines[:2]] == ["loss", "epochs"]
    assert METADATA_LINE.match(lines[0])[2] == '{"unit": "nat", "format": ":.3f"}'
    assert METADATA_LINE.match(lines[1])[2] == '{"unit": null}'
    logged = [LOG_LINE.match(line).groups() for line in lines[2:]]
    assert logged == [
        ('"PARAMETER"', '{"lr": 0.1, "seed": null}'),
        ("[0, 1]", '{"loss": 1.5}'),
        ("[]", '{"top1": 0.75}'),
    ]
    log.close()
    log.log((1,), {"after": "close"})
    log.close()
    assert len(read(path)) == 5


@pytest.mark.usefixtures("no_dllogger")
def test_numpy_and_tensorflow_values_are_written_as_plain_json(tmp_path):
    class Mode(enum.Enum):
        TRAIN = "train"

    data = {
        "np": np.float32(0.5),
        "np64": np.float64(0.25),
        "int": np.int64(3),
        "flag": np.bool_(True),
        "array": np.arange(3),
        "tf": tf.constant(2.5),
        "variable": tf.Variable([1, 2]),
        "bf16": ml_dtypes.bfloat16(1.5),
        "path": Path("a") / "b",
        "mode": Mode.TRAIN,
        "nested": {1: (np.float32(1.0), None)},
        "object": logging.WARNING.__class__,
    }
    log = make_json_logger(tmp_path / "log.json")
    log.log((np.int64(1), 2), data)
    (line,) = read(tmp_path / "log.json")
    assert line["step"] == [1, 2]
    assert line["data"].pop("bf16") in (1.5, "1.5")
    assert line["data"] == {
        "np": 0.5,
        "np64": 0.25,
        "int": 3,
        "flag": True,
        "array": [0, 1, 2],
        "tf": 2.5,
        "variable": [1, 2],
        "path": os.path.join("a", "b"),
        "mode": "train",
        "nested": {"1": [1.0, None]},
        "object": "<class 'int'>",
    }
    log.log((1, 3), {"loss": tf.constant(math.nan), "top": math.inf})
    log.close()
    text = (tmp_path / "log.json").read_text().splitlines()[-1]
    assert text.endswith('{"loss": null, "top": null}}')


@pytest.mark.usefixtures("no_dllogger")
def test_append_keeps_earlier_lines_and_overwrite_drops_them(tmp_path):
    path = tmp_path / "log.json"
    for append in (True, True, False, True):
        log = make_json_logger(path, append=append)
        log.log((0,), {"append": append})
        log.close()
    assert [line["data"]["append"] for line in read(path)] == [False, True]


@pytest.mark.usefixtures("no_dllogger")
@pytest.mark.parametrize(
    ("ending", "kept"),
    [
        ("\n", [1, 2]),
        ("", [1, 2]),
        ('\nDLLL {"timestamp": "17953245', [1, 2]),
        ("\nDLLL ", [1, 2]),
    ],
)
def test_a_line_cut_by_a_crash_is_removed_and_the_file_stays_readable(tmp_path, ending, kept):
    path = tmp_path / "log.json"
    path.write_text('DLLL {"n": 1}\nDLLL {"n": 2}' + ending)
    with closing(make_json_logger(path, append=True)) as log:
        log.log((0,), {})
    assert [line.get("n") for line in read(path)] == [*kept, None]


@pytest.mark.usefixtures("no_dllogger")
def test_the_last_line_of_a_file_that_is_no_log_is_kept(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("my notes")
    with closing(make_json_logger(path, append=True)) as log:
        log.log((0,), {})
    assert path.read_text().startswith("my notes\nDLLL {")


def test_a_process_killed_by_sigkill_loses_no_line(tmp_path):
    path = tmp_path / "log.json"
    code = (
        "import sys, os, signal; sys.modules['dllogger'] = None\n"
        "from convoy.utils.logging import make_json_logger\n"
        "log = make_json_logger(sys.argv[1])\n"
        "for i in range(100): log.log((i,), {'i': i})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert [line["data"]["i"] for line in read(path)] == list(range(100))


def test_an_installed_dllogger_writes_the_log(tmp_path, stub_dllogger):
    path = tmp_path / "log.json"
    log = make_json_logger(path)
    log.metadata("loss", "nat", ":.3f")
    log.parameters({"lr": np.float32(0.5)})
    log.log((0, 1), {"loss": tf.constant(1.5)})
    assert stub_dllogger == [
        ("loss", {"unit": "nat", "format": ":.3f"}),
        ("PARAMETER", {"lr": 0.5}),
        ([0, 1], {"loss": 1.5}),
    ]
    assert path.read_text() == "PARAMETER\n[0, 1]\n", "each line must be flushed"
    log.close()
    log.close()
    log.log((1,), {})
    assert len(stub_dllogger) == 3
    # The global init of dllogger would refuse a second logger.
    second = make_json_logger(path, append=True)
    second.log((2,), {})
    second.close()
    assert path.read_text().endswith("[2]\n")


def test_without_a_path_the_logger_does_nothing():
    log = make_json_logger(None)
    log.metadata("loss", "nat")
    log.parameters({})
    log.log((), {})
    log.flush()
    log.close()


def test_tensorboard_scalars_are_readable_and_need_a_folder(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    off = TensorBoardWriter(None)
    off.scalars({"loss": 1.0}, 1)
    off.close()
    writer = TensorBoardWriter(tmp_path / "tb")
    assert not (tmp_path / "tb").exists()
    for step in range(3):
        writer.scalars({"train/loss": np.float32(3.0 - step), "lr": tf.constant(0.5)}, step)
    events = EventAccumulator(str(tmp_path / "tb"), size_guidance={"tensors": 0})
    events.Reload()  # read before close: every call is flushed
    got = [(e.step, float(tf.make_ndarray(e.tensor_proto))) for e in events.Tensors("train/loss")]
    assert got == [(0, 3.0), (1, 2.0), (2, 1.0)]
    assert len(events.Tensors("lr")) == 3
    writer.close()
    writer.close()


@pytest.mark.parametrize(
    ("rank", "verbosity", "want"),
    [
        (0, 0, ["WARNING: careful", "ERROR: wrong"]),
        (0, 1, ["hello", "WARNING: careful", "ERROR: wrong"]),
        (0, 2, ["DEBUG: detail", "hello", "WARNING: careful", "ERROR: wrong"]),
        (3, 1, ["[rank 3] WARNING: careful", "[rank 3] ERROR: wrong"]),
        (3, 2, [f"[rank 3] {t}" for t in ("DEBUG: detail", "hello")]),
    ],
)
def test_verbosity_selects_levels_and_other_ranks_have_a_prefix(capsys, rank, verbosity, want):
    setup_logging(0, 2)
    logger = setup_logging(rank, verbosity)
    assert logger is logging.getLogger("convoy")
    logger.debug("detail")
    logger.info("hello")
    logger.warning("careful")
    logger.error("wrong")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[: len(want)] == want
    assert err.count("careful") == 1, "two calls of setup_logging must not print twice"


def test_exceptions_have_a_traceback_and_a_closed_stderr_is_ignored(capsys, monkeypatch):
    logger = setup_logging(2)
    try:
        raise KeyError("lost")
    except KeyError:
        logger.exception("failed")
    err = capsys.readouterr().err
    assert err.startswith("[rank 2] ERROR: failed\nTraceback")
    assert "KeyError: 'lost'" in err
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    logger.error("nobody hears this")
    with pytest.raises(ValueError, match="verbosity"):
        setup_logging(0, 7)


@pytest.mark.parametrize("run", ["first", "second"])
def test_logger_settings_of_one_test_do_not_reach_the_next(run, caplog):
    """conftest.py resets them; otherwise counts of caplog's records would depend on the order."""
    logging.getLogger("convoy.data").info("nobody asked for information")
    logging.getLogger("convoy.data").warning("careful")
    assert [record.message for record in caplog.records] == ["careful"]
    setup_logging(0, 2)
    logging.getLogger("convoy.data").setLevel(logging.DEBUG)


@pytest.mark.usefixtures("no_dllogger")
def test_a_last_line_that_another_process_is_still_writing_is_kept(tmp_path, monkeypatch):
    path = tmp_path / "log.json"
    path.write_text('DLLL {"n": 1}\nDLLL {"n"')

    def write_on(_):
        with path.open("a") as file:
            file.write(": 2}\n")

    monkeypatch.setattr(logging_module.time, "sleep", write_on)
    with closing(make_json_logger(path, append=True)) as log:
        log.log((0,), {})
    assert [line.get("n") for line in read(path)] == [1, 2, None]


def test_a_full_disk_loses_log_lines_but_does_not_stop_the_run(small_disk, caplog):
    log = make_json_logger(small_disk / "log.json")
    log.log((1,), {"loss": 1.0})
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space"):
        filler.write_bytes(b"\0" * 2_000_000)
    for _ in range(9):
        log.log((2,), {"loss": 1.0, "much": "x" * 3000})
    assert caplog.text.count("the run's log cannot be written (No space left on device)") == 1
    filler.unlink()
    log.log((3,), {"loss": 1.0})
    log.close()
    lines = [line["step"] for line in read(small_disk / "log.json")]
    assert lines[0] == [1]
    assert lines[-1] == [3]
