"""Handles stop and save requests: signals and the checkpoint timer.

Signals reach ranks at different moments, and clocks differ. So a rank only records its wish here.
Wishes travel with the gradients (`Step`) and between the batches of an evaluation (`evaluate`), and
every rank acts on them at the same place. While there is nothing to save and no rank to wait for,
for example while TensorFlow is imported, a signal ends the work at once (`at_once`).
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NamedTuple

from convoy.utils.distributed import ranks

EXIT_PREEMPTED = 75
USUAL = ("SIGTERM", "SIGUSR1")
"""Default of `--preempt_signals`."""
PATIENCE = 20.0
"""Seconds from a signal until a process with nothing to save ends itself, if its main thread hangs
in code that does not handle signals. Schedulers kill after 30.
"""
_SCONTROL_SECONDS = 10  # all ranks wait this long for Slurm's controller, out of those 30


class Preempted(RuntimeError):
    """A signal asked the run to stop; everything is saved. The text says how to continue.

    Attributes:
        queued: whether the run will be restarted automatically.
    """

    def __init__(self, text: str, queued: bool = False) -> None:
        super().__init__(text)
        self.queued = queued


class Stopped(BaseException):
    """A signal came where work ends at once.

    Like Ctrl-C, it can come at any line, and `except Exception` does not catch it.
    """


class Wishes(NamedTuple):
    """The requests that ranks send with their gradients.

    They are to stop, to save a checkpoint, and, in an elastic job whose hosts have changed, to
    regroup.
    """

    stop: bool = False
    save: bool = False
    regroup: bool = False


class Requests:
    """One rank's wishes.

    Its `with` block records signals; enter it before a run is set up, which may take minutes. If
    blocks are nested, the outermost counts. It does nothing outside the main thread, where Python
    does not accept handlers.

    A second signal of the same kind has its usual effect, so a run can still be ended at once.

    Args:
        signals: names such as "SIGTERM"; `hear` may replace them.
        exits: whether we may end the process: see `PATIENCE`.

    Attributes:
        signal: the name of the received signal, or "".
        at_stake: whether the run has made progress since it last saved.
        requeue: whether Slurm should queue the job again after a stop.
    """

    def __init__(self, signals: Sequence[str] = (), exits: bool = False) -> None:
        self.signal, self.at_stake, self.requeue = "", False, True
        self._signals, self._exits = list(signals), exits
        self._before: dict[signal.Signals, Any] = {}
        self._raises, self._blocks = False, 0
        self._stopping = threading.Event()
        self._listener: _Listener | None = None
        self._period: float | None = None
        self._saved_at = 0.0

    def __enter__(self) -> Requests:
        if not self._blocks:
            self.hear(self._signals)
        self._blocks += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._blocks -= 1
        if self._blocks:
            return
        if self._exits:  # everything is saved: nothing should interrupt the interpreter's exit
            atexit.register(_ignore, list(self._before))
        self.hear(())
        self._stopping.set()
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def hear(self, signals: Sequence[str]) -> None:
        """Records these signals, and no others, within the `with` block."""
        if threading.current_thread() is not threading.main_thread():
            return
        wanted = [signal.Signals[name] for name in signals]
        for number in [number for number in self._before if number not in wanted]:
            signal.signal(number, self._before.pop(number))
        for number in wanted:
            if number not in self._before:
                self._before[number] = signal.signal(number, self._note)
        if self._before and self._exits and self._listener is None:
            self._listener = _Listener(self._end_if_it_hangs)

    def never_exit(self) -> None:
        """Leaves it to other code, from now on, when this process ends."""
        self._exits = False

    @contextmanager
    def at_once(self, wanted: bool = True) -> Iterator[None]:
        """Within the block, a signal ends the work at once, also one that came earlier.

        Args:
            wanted: False: signals are only recorded, as outside the block.

        Raises:
            Stopped: a signal came.
        """
        before = self._raises
        self._raises = wanted
        try:
            if wanted and self.signal:
                raise Stopped
            yield
        finally:
            self._raises = before

    def _note(self, number: int, _: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        signal.signal(number, signal.SIG_DFL)
        if self._raises:
            self.stopping()
            raise Stopped

    def stopping(self) -> None:
        """Notes that the run is about to stop, however long its last save takes."""
        self._raises = False
        self._stopping.set()

    def _end_if_it_hangs(self, number: int) -> None:
        """Ends the process after a signal if the main thread runs no handler; runs in a thread.

        The main thread may be in C++, where it compiles or waits for a rank that never comes.
        """
        if number not in self._before or self._stopping.wait(PATIENCE) or not self._exits:
            return
        while self.at_stake:
            if self._stopping.wait(1.0):
                return
        name = signal.Signals(number).name
        text = f"stopped by {name}; everything is saved (the current work could not be interrupted"
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.write(f"convoy: {text}, and did not end within {PATIENCE:.0f} s)\n")
            sys.stderr.flush()
        os._exit(EXIT_PREEMPTED)

    def save_every(self, minutes: float | None) -> None:
        """Requests a checkpoint whenever this much time has passed since the last (None: never).

        Call it on only one rank.
        """
        self._period = None if minutes is None else 60 * minutes
        self.saved()

    def asked_to_stop(self) -> bool:
        """Returns whether this rank was asked to stop."""
        return bool(self.signal)

    def wishes(self) -> tuple[bool, bool]:
        """Returns whether this rank wants to stop, and whether it wants to save, after a step."""
        due = self._period is not None and time.monotonic() - self._saved_at >= self._period
        return bool(self.signal), due

    def saved(self) -> None:
        """Restarts the timer."""
        self._saved_at = time.monotonic()


def _ignore(numbers: Sequence[signal.Signals]) -> None:
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


class _Listener:
    """A thread that learns of each signal that Python handles, even while the main thread is busy.

    Create it in the main thread. It does nothing if something else is listening, such as a
    notebook's server.
    """

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell
        self._reads, self._writes = os.pipe()
        os.set_blocking(self._writes, False)
        self._before = signal.set_wakeup_fd(self._writes, warn_on_full_buffer=False)
        if self._before != -1:
            signal.set_wakeup_fd(self._before)
        self._thread = threading.Thread(target=self._listen, name="convoy-signals", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while number := os.read(self._reads, 1):
            self._tell(number[0])

    def close(self) -> None:
        """Ends the thread, which must not be inside a long call."""
        signal.set_wakeup_fd(self._before)
        os.close(self._writes)
        self._thread.join()
        os.close(self._reads)


def stopped_at_once(requests: Requests, when: str, name: str = "") -> Preempted:
    """Returns the error to raise or show after `Stopped`: nothing had to be saved.

    Args:
        requests: this rank's.
        when: for example "before its first step".
        name: name of the signal, if another rank received it.
    """
    requests.stopping()
    text = f"stopped by {name or requests.signal} {when}"
    # Ranks have not met yet, so the launcher's variables tell which rank is the first.
    variables = ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")
    first = all(os.environ.get(name, "0") == "0" for name in variables)
    queued = requeue() if requests.requeue and first else ""
    return Preempted(f"{text}. {queued}" if queued else text)


def stop_if_asked(requests: Requests, when: str, saves: bool = True) -> None:
    """Stops the run if any rank was asked to. All ranks must call this, after saving.

    Args:
        requests: this rank's.
        when: for example "after step 7".
        saves: whether the run saves anything.

    Raises:
        Preempted: a signal came on any rank.
    """
    signals = ranks.all_gather_object(requests.signal)
    if not any(signals):
        return
    requests.stopping()
    kept = "nothing is saved (--no_checkpoints)"
    if saves:
        kept = "everything is saved: continue with --resume_checkpoint"
    text = f"stopped by {next(filter(None, signals))} {when}; {kept}"
    queued = requeue() if requests.requeue and ranks.rank() == 0 else ""
    raise Preempted(f"{text}. {queued}" if queued else text, queued=bool(queued))


def requeue(environment: Mapping[str, str] = os.environ) -> str:
    """Asks Slurm to queue this batch job again; returns the message for the user.

    Outside a batch job, or without `scontrol`, it does nothing and returns "".
    """
    job = environment.get("SLURM_JOB_ID")
    if not job or "SLURM_JOB_NAME" not in environment or not shutil.which("scontrol"):
        return ""
    if array := environment.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{environment['SLURM_ARRAY_TASK_ID']}"
    command = ["scontrol", "requeue", job]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SCONTROL_SECONDS, errors="replace"
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        why = str(error) if isinstance(error, OSError) else f"no answer for {_SCONTROL_SECONDS} s"
        return (
            f"job {job} may not be queued again ({why}): check squeue, or run {' '.join(command)}"
        )
    if done.returncode:
        return f"Slurm would not queue job {job} again: {done.stderr.strip()}"
    return f"Slurm has queued job {job} again"
