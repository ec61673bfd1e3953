"""Writes the run's log: DLLogger's JSON lines, TensorBoard scalars, and stdlib logging.

Only rank 0 builds a `RunLog` with a path or a `TensorBoardWriter` with a folder; `setup_logging` is
for every rank. TensorFlow, rich and dllogger are imported only when needed.
"""

from __future__ import annotations

import atexit
import importlib
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

from convoy.utils import strict_json
from convoy.utils.files import Remote, is_url, path_of, size_of, truncate
from convoy.utils.progress import SafeStream
from convoy.utils.text import for_reader

LOGGER_NAME = "convoy"
_LINE_TAG = "DLLL "
_A_LINE_SECONDS = 0.2  # a line that another process is writing is complete after this time


def to_plain(value: Any) -> Any:
    """Converts NumPy and TensorFlow values, paths and enums to values that `json.dumps` accepts.

    Containers become lists and dicts with string keys, NaN and infinities None. Other unknown
    values become their `str`, because a log line should never end a run.
    """
    if isinstance(value, Enum):
        return to_plain(value.value)
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_plain(item) for item in value]
    if hasattr(value, "numpy"):
        value = value.numpy()
    plain = value.tolist() if hasattr(value, "tolist") else str(value)
    return to_plain(plain) if isinstance(plain, (bool, int, float, str, list)) else str(plain)


class DLLLogWriter:
    """Writes the lines of dllogger 1.1.0's JSONStreamBackend: `DLLL {...}`, same keys, same order.

    `timestamp` (seconds since 1970), `elapsedtime` (seconds since this object was made) and
    `datetime` (with the zone) are strings; tuples become lists. NaN and infinities are null;
    dllogger writes `NaN` and `Infinity`, which are not JSON. Each line is flushed, so a killed
    process loses none (at a URL, only those of the last 30 s).
    """

    def __init__(self, path: str | Path | Remote, append: bool = False) -> None:
        self._file = path_of(path).open("a" if append else "w", encoding="utf-8")
        self._start = datetime.now().astimezone()

    def metadata(self, metric: str, metadata: dict[str, Any]) -> None:
        """Writes a METADATA line."""
        stamps = self._stamps("timestamp", "elapsedtime", "datetime")
        self._write({**stamps, "type": "METADATA", "metric": metric, "metadata": metadata})

    def log(self, step: Any, data: dict[str, Any]) -> None:
        """Writes a LOG line."""
        # On purpose: in the original, the last two are in the opposite order to METADATA.
        stamps = self._stamps("timestamp", "datetime", "elapsedtime")
        self._write({**stamps, "type": "LOG", "step": step, "data": data})

    def _stamps(self, *order: str) -> dict[str, str]:
        now = datetime.now().astimezone()
        elapsed = (now - self._start).total_seconds()
        stamps = {"timestamp": now.timestamp(), "elapsedtime": elapsed, "datetime": now}
        return {key: str(stamps[key]) for key in order}

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(f"{_LINE_TAG}{strict_json.dumps(line)}\n")
        self._file.flush()

    def flush(self) -> None:
        """Passes written lines to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Closes the file. May be called twice."""
        self._file.close()


class RunLog:
    """The run's JSON log, with any writer; see `make_json_logger`.

    `writer` is a `DLLLogWriter` or a `dllogger.Logger`; without a writer, all calls do nothing. If
    a line cannot be written, for example because the disk is full, it warns once and the run
    continues.
    """

    def __init__(self, writer: Any = None, close: Callable[[], None] | None = None) -> None:
        self._writer = writer
        self._close = close
        self._failed = False

    def metadata(self, metric: str, unit: str | None, format: str | None = None) -> None:
        """Declares a metric's unit, such as `"images/s"`, and its format, such as `":.3f"`."""
        if self._writer:
            entry = {"unit": unit} if format is None else {"unit": unit, "format": format}
            with self._surviving():
                self._writer.metadata(metric, entry)
                self._writer.flush()

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Logs the run's settings as a LOG line with step PARAMETER."""
        self.log("PARAMETER", values)

    def log(self, step: tuple[int, ...] | str, data: Mapping[str, Any]) -> None:
        """Logs metrics for a step: `(epoch, step)`, `(epoch,)`, or `()` for the whole run."""
        if self._writer:
            with self._surviving():
                self._writer.log(to_plain(step), to_plain(data))
                self._writer.flush()

    def flush(self) -> None:
        """Passes everything to the operating system (each line already is when it is logged)."""
        if self._writer:
            with self._surviving():
                self._writer.flush()

    def close(self) -> None:
        """Closes the log; later calls do nothing."""
        self.flush()
        if self._close:
            with self._surviving():
                self._close()
        self._writer = self._close = None

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._failed:
                text = "the run's log cannot be written (%s): lines of it may be missing"
                logging.getLogger(LOGGER_NAME).warning(text, error.strerror or error)
            self._failed = True


def make_json_logger(path: str | Path | Remote | None, append: bool = False) -> RunLog:
    """Opens the run's JSON log, with dllogger if it is installed, otherwise with our writer.

    Args:
        path: the file; its folder is created. None (all ranks but 0) gives a log that does nothing.
        append: continue an existing file, as a resumed run does. A last line that was cut off is
            then removed, so that the file stays readable.
    """
    if path is None:
        return RunLog()
    path = path_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if append:
        _mend_last_line(path)
    elif not is_url(path):
        # Truncate, then open for appending: an evaluation may append its lines during a run, and
        # the run must not overwrite them.
        path.write_bytes(b"")
        append = True
    with suppress(ImportError):
        if isinstance(path, Path):  # dllogger opens only local files
            return _dllogger(path, append)
    writer = DLLLogWriter(path, append)
    return RunLog(writer, writer.close)


def _dllogger(path: Path, append: bool) -> RunLog:
    dllogger = importlib.import_module("dllogger")
    backend = dllogger.JSONStreamBackend(dllogger.Verbosity.VERBOSE, os.fspath(path), append=append)
    # Use our own Logger, not the global one: a second `dllogger.init` in a process raises.
    logger = dllogger.Logger([backend])

    def close() -> None:
        # dllogger has no close; its flush at exit would fail on the file closed here.
        atexit.unregister(logger.flush)
        backend.file.close()

    return RunLog(logger, close)


def _mend_last_line(path: Path | Remote) -> None:
    """Completes an unfinished last line, or removes it if it is part of one of our lines."""
    content = path.read_bytes() if path.exists() else b""
    rest = content[content.rfind(b"\n") + 1 :]
    if not rest:
        return
    time.sleep(_A_LINE_SECONDS)
    if size_of(path) != len(content):
        return  # a run is active and has finished its line
    try:
        json.loads(rest.removeprefix(_LINE_TAG.encode()))
    except ValueError:
        if rest.startswith(_LINE_TAG.encode()):
            truncate(path, len(content) - len(rest))
            return
    with path.open("ab") as file:
        file.write(b"\n")


class TensorBoardWriter:
    """Writes scalars and pictures for TensorBoard. With `logdir=None`, all calls do nothing.

    It imports TensorFlow and creates the folder for the first of them.
    """

    def __init__(self, logdir: str | os.PathLike[str] | None) -> None:
        self._logdir = None if logdir is None else os.fspath(logdir)
        self._writer: Any = None

    def scalars(self, values: Mapping[str, Any], step: int) -> None:
        """Writes one float per tag, such as `{"train/loss": 0.5}`, at a step number."""
        if self._logdir is None:
            return
        import tensorflow as tf

        with self._open():
            for tag, value in values.items():
                tf.summary.scalar(tag, float(value), step=int(step))
        self._writer.flush()  # otherwise a kill would lose up to two minutes of scalars

    def image(self, tag: str, pixels: Any, step: int) -> None:
        """Writes a picture, uint8 `(H, W, 3)`."""
        if self._logdir is None:
            return
        import tensorflow as tf

        with self._open():
            tf.summary.image(tag, pixels[None], step=int(step))
        self._writer.flush()

    def _open(self) -> Any:
        import tensorflow as tf

        if self._writer is None:
            self._writer = tf.summary.create_file_writer(self._logdir)
        return self._writer.as_default()

    def close(self) -> None:
        """Closes the event file; a later scalar starts a new one."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None


class _StderrHandler(logging.Handler):
    """Writes to the current `sys.stderr`: a progress bar replaces it for a time."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self._prefix = f"[rank {rank}] " if rank > 0 else ""

    def emit(self, record: logging.LogRecord) -> None:
        level = "" if record.levelno == logging.INFO else f"{record.levelname}: "
        text = for_reader(f"{self._prefix}{level}{self.format(record)}", sys.stderr)
        SafeStream(sys.stderr).write(f"{text}\n")


def setup_logging(rank: int = 0, verbosity: int = 1) -> logging.Logger:
    """Sets up the logger "convoy" on stderr for this process. May be called again.

    Rank 0 logs as much as `verbosity` asks for. Other ranks log only warnings and errors, prefixed
    with `[rank N]`, unless `verbosity` is 2. Records do not propagate to the root logger, where
    absl may have attached a handler that would print them again. `verbosity` is 0 for warnings and
    errors, 1 for information, 2 for everything; ValueError for other values.
    """
    levels = {0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}
    if verbosity not in levels:
        raise ValueError(f"verbosity must be 0, 1 or 2, not {verbosity}.")
    logger = logging.getLogger(LOGGER_NAME)
    for handler in [h for h in logger.handlers if isinstance(h, _StderrHandler)]:
        logger.removeHandler(handler)
    logger.addHandler(_StderrHandler(rank))
    logger.setLevel(levels[0 if rank > 0 and verbosity < 2 else verbosity])
    logger.propagate = False
    return logger
