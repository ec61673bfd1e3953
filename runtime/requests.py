"""What interrupts the steps: a signal that asks to stop, and the clock that asks to save.

Signals reach ranks at different moments, and clocks differ. So a rank only notes its wish here; the
wishes travel with the gradients (`Step`), and every rank acts on them after the same step.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any


class Preempted(RuntimeError):
    """A signal asked the run to stop; everything is saved. The text says how to go on."""


class Requests:
    """One rank's wishes. Its `with` block notes signals; begin it before a run is set up, which may
    take minutes. It does nothing outside the main thread, where Python takes no handlers.

    A second signal of the same kind has its usual effect, so that a run can still be ended at once.

    Args:
        signals: names such as "SIGTERM".

    Attributes:
        signal: the name of the signal that came, or "".
    """

    def __init__(self, signals: Sequence[str] = ()) -> None:
        self.signal = ""
        self._signals = [signal.Signals[name] for name in signals]
        self._before: dict[signal.Signals, Any] = {}
        self._period: float | None = None
        self._saved_at = 0.0

    def __enter__(self) -> Requests:
        main = threading.current_thread() is threading.main_thread()
        for number in self._signals if main else ():
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, _: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        signal.signal(number, signal.SIG_DFL)

    def save_every(self, minutes: float | None) -> None:
        """Asks for a checkpoint whenever so much time has passed since the last (None: never).
        For one rank only.
        """
        self._period = None if minutes is None else 60 * minutes
        self.saved()

    def wishes(self) -> tuple[bool, bool]:
        """Whether this rank wants to stop, and whether it wants a checkpoint, after this step."""
        due = self._period is not None and time.monotonic() - self._saved_at >= self._period
        return bool(self.signal), due

    def saved(self) -> None:
        """Starts the clock anew."""
        self._saved_at = time.monotonic()


def preempted(signals: Sequence[str], when: str, saved: bool, queued: str) -> Preempted:
    """What to raise when a stop was granted.

    Args:
        signals: of all ranks, "" where none came.
        when: such as "after step 7".
        queued: what `requeue` said.
    """
    kept = "nothing is saved (--no_checkpoints)"
    if saved:
        kept = "everything is saved: go on with --resume_checkpoint"
    text = f"stopped by {next(filter(None, signals))} {when}; {kept}"
    return Preempted(f"{text}. {queued}" if queued else text)


def requeue(environment: Mapping[str, str] = os.environ) -> str:
    """Asks Slurm to queue this batch job again; returns what to tell the user.

    Outside a batch job, or where `scontrol` is missing, nothing is asked and the text is empty.
    """
    job = environment.get("SLURM_JOB_ID")
    if not job or "SLURM_JOB_NAME" not in environment or not shutil.which("scontrol"):
        return ""
    if array := environment.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{environment['SLURM_ARRAY_TASK_ID']}"
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60)
    if done.returncode:
        return f"Slurm would not queue job {job} again: {done.stderr.strip()}"
    return f"Slurm has queued job {job} again"
