"""The run's log: DLLogger's JSON lines, TensorBoard scalars, the terminal, and stdlib logging.

Only rank 0 builds a `RunLog` with a path, a `TensorBoardWriter` with a folder, or a `Progress`;
`setup_logging` is for every rank. No TensorFlow, rich or dllogger is imported before it is needed.
"""

from __future__ import annotations

import atexit
import importlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from datetime import datetime, timedelta
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, TextIO

LOGGER_NAME = "convoy"
_LINE_TAG = "DLLL "
_LINE_WIDTH = 80
_REDRAW_SECONDS = 0.1


def to_plain(value: Any) -> Any:
    """Turns NumPy and TensorFlow values, paths and enums into what `json.dumps` can write.

    Containers become lists and dicts with string keys; anything else unknown becomes its `str`,
    for a log line should never end a run.
    """
    if isinstance(value, Enum):
        return to_plain(value.value)
    if value is None or type(value) in (bool, int, float, str):
        return value
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
    `datetime` (with the zone) are strings; tuples become lists. NaN and infinities are written as
    `NaN` and `Infinity`, as dllogger does: Python's `json` reads them, strict JSON readers do not.
    Each line is flushed, so that a killed process loses none.
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = False) -> None:
        self._file = open(path, "a" if append else "w", encoding="utf-8")  # noqa: SIM115
        self._start = datetime.now().astimezone()

    def metadata(self, metric: str, metadata: dict[str, Any]) -> None:
        """Writes a METADATA line."""
        stamps = self._stamps("timestamp", "elapsedtime", "datetime")
        self._write({**stamps, "type": "METADATA", "metric": metric, "metadata": metadata})

    def log(self, step: Any, data: dict[str, Any]) -> None:
        """Writes a LOG line."""
        # Not a slip: the original has the last two the other way round than in METADATA.
        stamps = self._stamps("timestamp", "datetime", "elapsedtime")
        self._write({**stamps, "type": "LOG", "step": step, "data": data})

    def _stamps(self, *order: str) -> dict[str, str]:
        now = datetime.now().astimezone()
        elapsed = (now - self._start).total_seconds()
        stamps = {"timestamp": now.timestamp(), "elapsedtime": elapsed, "datetime": now}
        return {key: str(stamps[key]) for key in order}

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(f"{_LINE_TAG}{json.dumps(line)}\n")
        self._file.flush()

    def flush(self) -> None:
        """Hands what is written to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Closes the file. May be called twice."""
        self._file.close()


class RunLog:
    """The run's JSON log, whoever writes it; see `make_json_logger`.

    `writer` is a `DLLLogWriter` or a `dllogger.Logger`; without one every call does nothing.
    """

    def __init__(self, writer: Any = None, close: Callable[[], None] | None = None) -> None:
        self._writer = writer
        self._close = close

    def metadata(self, metric: str, unit: str | None, format: str | None = None) -> None:
        """Declares a metric's unit, such as `"images/s"`, and its format, such as `":.3f"`."""
        if self._writer:
            entry = {"unit": unit} if format is None else {"unit": unit, "format": format}
            self._writer.metadata(metric, entry)
            self._writer.flush()

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Logs the run's settings: a LOG line whose step is the word PARAMETER."""
        self.log("PARAMETER", values)

    def log(self, step: tuple[int, ...] | str, data: Mapping[str, Any]) -> None:
        """Logs metrics of a step: `(epoch, step)`, `(epoch,)`, or `()` for the whole run."""
        if self._writer:
            self._writer.log(to_plain(step), to_plain(data))
            self._writer.flush()

    def flush(self) -> None:
        """Hands everything to the operating system (each line already is, as it is logged)."""
        if self._writer:
            self._writer.flush()

    def close(self) -> None:
        """Ends the log; later calls do nothing."""
        self.flush()
        if self._close:
            self._close()
        self._writer = self._close = None


def make_json_logger(path: str | os.PathLike[str] | None, append: bool = False) -> RunLog:
    """Opens the run's JSON log, with dllogger where it is installed and our writer elsewhere.

    Args:
        path: The file, whose folder is created; None (all ranks but 0) for a log that does nothing.
        append: Whether to go on after what the file holds, as a resumed run does. A last line that
            was cut off in the middle is then removed, so that the file stays readable.
    """
    if path is None:
        return RunLog()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if append:
        _mend_last_line(Path(path))
    try:
        dllogger = importlib.import_module("dllogger")
    except ImportError:
        writer = DLLLogWriter(path, append)
        return RunLog(writer, writer.close)
    backend = dllogger.JSONStreamBackend(dllogger.Verbosity.VERBOSE, os.fspath(path), append=append)
    # A Logger of our own, not the global one: a second `dllogger.init` in a process raises.
    logger = dllogger.Logger([backend])

    def close() -> None:
        # dllogger has no close; it flushes at exit, which would fail on the file closed here.
        atexit.unregister(logger.flush)
        backend.file.close()

    return RunLog(logger, close)


def _mend_last_line(path: Path) -> None:
    """Completes an unended last line, or removes it if it is half of one of ours."""
    content = path.read_bytes() if path.exists() else b""
    rest = content[content.rfind(b"\n") + 1 :]
    if not rest:
        return
    try:
        json.loads(rest.removeprefix(_LINE_TAG.encode()))
    except ValueError:
        if rest.startswith(_LINE_TAG.encode()):
            os.truncate(path, len(content) - len(rest))
            return
    with path.open("ab") as file:
        file.write(b"\n")


class TensorBoardWriter:
    """Scalars for TensorBoard. With `logdir=None` every call does nothing.

    TensorFlow is imported and the folder created when the first scalar is written.
    """

    def __init__(self, logdir: str | os.PathLike[str] | None) -> None:
        self._logdir = None if logdir is None else os.fspath(logdir)
        self._writer: Any = None

    def scalars(self, values: Mapping[str, Any], step: int) -> None:
        """Writes one float per tag, such as `{"train/loss": 0.5}`, at a step number."""
        if self._logdir is None:
            return
        import tensorflow as tf

        if self._writer is None:
            self._writer = tf.summary.create_file_writer(self._logdir)
        with self._writer.as_default():
            for tag, value in values.items():
                tf.summary.scalar(tag, float(value), step=int(step))
        self._writer.flush()  # or a kill would lose up to two minutes of them

    def close(self) -> None:
        """Ends the event file; a later scalar begins another."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None


class _SafeStream:
    """A text stream that goes silent, instead of raising, once it is closed or its pipe broken."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        # rich draws with ASCII alone where this is not UTF-8.
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        with suppress(OSError, ValueError, AttributeError):
            return bool(self._stream.isatty())
        return False

    def write(self, text: str) -> int:
        try:
            if self._stream is not None:
                self._stream.write(text)
                self._stream.flush()
        except UnicodeEncodeError:
            # A class name in an alphabet that the terminal lacks is no reason to fall silent.
            self.write(text.encode("ascii", "replace").decode("ascii"))
        except (OSError, ValueError):
            self._stream = None
        return len(text)

    def flush(self) -> None:
        """Nothing to do: `write` flushes."""


class Progress(AbstractContextManager):
    """How training goes, on the terminal: a bar per epoch, or plain lines if it is no terminal.

    The bar shows the epoch's steps, loss, top-1, images/s and the time to the end of the run; a
    plain line of at most 80 columns, every `log_steps` steps and at each epoch's end, shows the
    learning rate as well. Where a line would be too long the learning rate goes first. A stream
    that is closed or broken makes it fall silent; it never raises for that.

    A step is an optimizer update; `stream` defaults to `sys.stdout`. Use it as a context manager,
    and ask `due` before fetching a loss from the device, which waits for it.
    """

    def __init__(
        self,
        *,
        total_epochs: int,
        steps_per_epoch: int,
        log_steps: int = 100,
        stream: TextIO | None = None,
    ) -> None:
        if min(total_epochs, steps_per_epoch, log_steps) < 1:
            raise ValueError("Epochs, steps per epoch and log steps must be at least 1.")
        self.total_epochs = total_epochs
        self.steps_per_epoch = steps_per_epoch
        self.log_steps = log_steps
        self._stream = _SafeStream(sys.stdout if stream is None else stream)
        self._first: tuple[int, float] | None = None
        self._drawn = 0.0
        self._bar: Any = None
        if self._stream.isatty() and os.environ.get("TERM") != "dumb":
            self._start_bar(own_stdout=stream is None)
            atexit.register(self.close)  # or a crash would leave the cursor hidden

    def _start_bar(self, own_stdout: bool) -> None:
        from rich import progress
        from rich.console import Console

        text = partial(progress.TextColumn, markup=False)
        self._bar = progress.Progress(
            text("{task.description}"),
            progress.BarColumn(bar_width=None),
            text("{task.completed}/{task.total}  {task.fields[stats]}"),
            console=Console(file=self._stream),
            auto_refresh=False,  # no thread of its own: it is redrawn from `update`
            expand=True,
            redirect_stdout=own_stdout,
            # What goes to a file through stderr must go on going there.
            redirect_stderr=own_stdout and _SafeStream(sys.stderr).isatty(),
        )
        self._task = self._bar.add_task("starting", total=self.steps_per_epoch, stats="")
        self._bar.start()

    def due(self, step: int) -> bool:
        """Whether `update` would show this step; the first update of the run has number 1."""
        if self._first is None or step % self.steps_per_epoch == 0:
            return True
        if self._bar is not None:
            return time.monotonic() - self._drawn >= _REDRAW_SECONDS
        return step % self.steps_per_epoch % self.log_steps == 0

    def update(
        self,
        step: int,
        *,
        loss: float,
        top1: float | None = None,
        lr: float | None = None,
        images_per_second: float | None = None,
    ) -> None:
        """Shows a step, if it is `due`: loss in nats, top-1 as a fraction, the job's images/s."""
        if not self.due(step):
            return
        now = self._drawn = time.monotonic()
        eta = ""
        if self._first is None:
            # The clock starts after the first step, which contains compilation. Time spent on
            # evaluation counts, so that the estimate is for the whole run.
            self._first = (step, now)
        elif step > self._first[0]:
            rate = (now - self._first[1]) / (step - self._first[0])
            remaining = max(0, self.total_epochs * self.steps_per_epoch - step)
            eta = f"eta {timedelta(seconds=round(rate * remaining))}"
        epoch, within = (n + 1 for n in divmod(step - 1, self.steps_per_epoch))
        fields = {
            "epoch": f"epoch {epoch}/{self.total_epochs}",
            "step": f"step {within}/{self.steps_per_epoch}",
            "loss": f"loss {loss:.3f}",
            "top1": "" if top1 is None else f"top-1 {100 * top1:.1f}%",
            "lr": "" if lr is None else f"lr {lr:.3g}",
            "ips": "" if images_per_second is None else f"{images_per_second:.0f} images/s",
            "eta": eta,
        }
        if self._bar is None:
            self.console_line(_fit_line(fields))
        else:
            stats = "  ".join(fields[name] for name in ("loss", "top1", "ips", "eta"))
            if self._bar.console.width < 100:  # or the estimate would be cut off
                stats = stats.replace("  ", " ").replace("images/s", "img/s")
            self._bar.update(self._task, description=fields["epoch"], completed=within, stats=stats)
            self._bar.refresh()

    def console_line(self, text: str) -> None:
        """Prints a line of text as it is, above the bar if there is one."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            self._stream.write(f"{text}\n")

    def close(self) -> None:
        """Ends the bar and gives the terminal back. Lines may still be printed."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            atexit.unregister(self.close)

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _fit_line(fields: dict[str, str]) -> str:
    """Joins the fields within 80 columns: first narrower gaps, then shorter words, then fewer."""
    texts = {name: text for name, text in fields.items() if text}
    line = "  ".join(texts.values())
    for dropped in ("", "lr", "eta", "ips", "top1"):
        if len(line) <= _LINE_WIDTH:
            break
        texts.pop(dropped, None)
        line = " ".join(texts.values())
        line = line if len(line) <= _LINE_WIDTH else line.replace("images/s", "img/s")
    return line[:_LINE_WIDTH]


class _StderrHandler(logging.Handler):
    """Writes to whatever `sys.stderr` is at the moment: a progress bar replaces it for a time."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self._prefix = f"[rank {rank}] " if rank > 0 else ""

    def emit(self, record: logging.LogRecord) -> None:
        level = "" if record.levelno == logging.INFO else f"{record.levelname}: "
        _SafeStream(sys.stderr).write(f"{self._prefix}{level}{self.format(record)}\n")


def setup_logging(rank: int = 0, verbosity: int = 1) -> logging.Logger:
    """Sets up the logger "convoy", to stderr, for this process. May be called again.

    Rank 0 says what `verbosity` asks for. Other ranks say only warnings and errors, each with
    `[rank N]` before it, unless everything is asked for. Records do not go on to the root logger,
    to which absl may have attached a handler that would print them twice. `verbosity` is 0 for
    warnings and errors, 1 for information, 2 for everything; ValueError for another.
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
