"""Shows training progress on the terminal. Only rank 0 builds a `Progress`."""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any, TextIO

from convoy.utils.text import speed_text

_REDRAW_SECONDS = 0.1


class SafeStream:
    """A text stream that becomes silent when it is closed or its pipe breaks; it never raises."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        # rich draws only ASCII if this is not UTF-8
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Returns whether the stream is an open terminal."""
        with suppress(OSError, ValueError, AttributeError):
            return self._stream is not None and bool(self._stream.isatty())
        return False

    def write(self, text: str) -> int:
        """Writes and flushes; characters that the encoding lacks become `?`."""
        try:
            if self._stream is not None:
                self._stream.write(text)
                self._stream.flush()
        except UnicodeEncodeError:
            # A class name in characters that the terminal lacks must not silence the stream.
            self.write(text.encode("ascii", "replace").decode("ascii"))
        except (OSError, ValueError):
            self._stream = None
        return len(text)

    def flush(self) -> None:
        """Does nothing: `write` flushes."""


class LastingStream:
    """Standard output or error whose reader may leave (`| head`), or whose disk may fill up.

    Output is then dropped, and the program continues.

    Args:
        whole: the output is the program's result, so a full disk is an error, which names it.
    """

    def __init__(self, stream: TextIO, whole: bool = False) -> None:
        self._stream, self._whole = stream, whole

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes, or drops the text if nobody can receive it."""
        return self._lasting(lambda: self._stream.write(text), len(text))

    def flush(self) -> None:
        """Flushes, unless nobody can receive the output."""
        self._lasting(self._stream.flush, None)

    def _lasting(self, action: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return action()
        except UnicodeError:
            raise
        except (OSError, ValueError) as error:
            if self._whole and not isinstance(error, BrokenPipeError):
                if isinstance(error, OSError):
                    error.filename = error.filename or "standard output"
                raise
            # Otherwise its buffer would be written again at the program's end, and fail.
            with suppress(OSError, ValueError):
                nothing = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nothing, self._stream.fileno())
                os.close(nothing)
            return otherwise


@contextmanager
def lasting_output(whole: bool = False) -> Iterator[None]:
    """Replaces standard output and error by `LastingStream`s, for our own programs.

    Args:
        whole: standard output is the program's result.
    """
    before = sys.stdout, sys.stderr
    sys.stdout = sys.stdout and LastingStream(sys.stdout, whole)
    sys.stderr = sys.stderr and LastingStream(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class Progress(AbstractContextManager):
    """Shows training progress: a bar per epoch on a terminal, plain lines elsewhere.

    The bar shows the epoch's steps, loss, top-1, images/s and the time to the end of the run. Plain
    lines, every `log_steps` steps and at each epoch's end, also show the learning rate: always the
    same fields in the same order, two spaces apart, without unknown ones. A closed or broken stream
    makes it silent, and never raises.

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
        self._stream = SafeStream(sys.stdout if stream is None else stream)
        self._first: tuple[int, float] | None = None
        self._drawn = 0.0
        self._bar: Any = None
        if self._stream.isatty() and os.environ.get("TERM") != "dumb":
            self._start_bar(own_stdout=stream is None)
            atexit.register(self.close)  # otherwise a crash would leave the cursor hidden

    def _start_bar(self, own_stdout: bool) -> None:
        from rich import progress
        from rich.console import Console

        text = partial(progress.TextColumn, markup=False)
        self._bar = progress.Progress(
            text("{task.description}"),
            progress.BarColumn(bar_width=None),
            text("{task.completed}/{task.total}  {task.fields[stats]}"),
            console=Console(file=self._stream),  # type: ignore[arg-type]  # it has what rich uses
            auto_refresh=False,  # no thread of its own: `update` redraws it
            expand=True,
            redirect_stdout=own_stdout,
            # Output to a file through stderr must still go there.
            redirect_stderr=own_stdout and SafeStream(sys.stderr).isatty(),
        )
        self._task = self._bar.add_task("starting", total=self.steps_per_epoch, stats="")
        self._bar.start()

    def due(self, step: int) -> bool:
        """Returns whether `update` would show this step; the run's first update has number 1."""
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
        """Shows a step if it is `due`.

        Args:
            step: number of the step.
            loss: in nats.
            top1: as a fraction.
            lr: learning rate.
            images_per_second: of the whole job.
        """
        if not self.due(step):
            return
        now = self._drawn = time.monotonic()
        eta = ""
        if self._first is None:
            # The clock starts after the first step, which includes compilation. Evaluation time
            # counts, so the estimate is for the whole run.
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
            "ips": "" if images_per_second is None else speed_text(images_per_second),
            "eta": eta,
        }
        if self._bar is None:
            # The format does not depend on the width: programs search and parse logs.
            self.console_line("  ".join(filter(None, fields.values())))
        else:
            stats = "  ".join(fields[name] for name in ("loss", "top1", "ips", "eta"))
            if self._bar.console.width < 100:  # otherwise the estimate would be cut off
                stats = stats.replace("  ", " ").replace("images/s", "img/s")
            self._bar.update(self._task, description=fields["epoch"], completed=within, stats=stats)
            self._bar.refresh()

    def console_line(self, text: str) -> None:
        """Prints a line of text unchanged, above the bar if there is one."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            self._stream.write(f"{text}\n")

    def close(self) -> None:
        """Ends the bar and restores the terminal. Lines may still be printed."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            atexit.unregister(self.close)

    def __exit__(self, *exc_info: object) -> None:
        self.close()
