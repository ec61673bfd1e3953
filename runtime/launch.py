"""Implements `--nproc N`: starts N processes of this command here, and acts as one for them.

They meet through Horovod's own rendezvous, as with horovodrun, with two differences: a rank's exit
code becomes the command's, and a signal that asks for a checkpoint is passed on, and the save is
waited for, however long it takes. Loads no TensorFlow.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from convoy.utils.distributed.slurm_and_nproc import DistributedError, serve
from convoy.utils.text import tell
from convoy.utils.watchdog.heartbeats import is_stopped

_MAIN = Path(__file__).resolve().parent.parent / "main.py"
# A checkout's own program need not be installed; a wheel has none, but Python finds it by name.
PROGRAM = [str(_MAIN)] if _MAIN.is_file() else ["-m", "convoy"]
PASSED_ON = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
# Time for the other ranks to notice that one has failed, to report it, and to finish writing.
GRACE_SECONDS = 30
# These do not mean that a rank failed: done, some images unreadable, preempted and saved.
ORDERLY = (0, 3, 75)
# After that, time for a stopped rank (SIGSTOP), which can neither notice nor write.
STOPPED_SECONDS = 2
_PR_SET_PDEATHSIG = 1
_LAUNCHER = "CONVOY_LAUNCHER"  # the launcher's pid, in a rank's environment


def launch(nproc: int, argv: Sequence[str]) -> int:
    """Runs `main.py ARGV` in `nproc` processes, and returns the exit code of the job.

    Each line of output is prefixed with its rank, on the rank's own stream. The exit code is that
    of the first rank that did not end with 0; if a signal ended it, 128 plus the signal's number.
    """
    try:
        server, places = serve([nproc])
    except DistributedError as error:
        _say(str(error))
        return 1
    at_home = {
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1",
        "HOROVOD_GLOO_IFACE": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        "PYTHONUNBUFFERED": "1",
        _LAUNCHER: str(os.getpid()),
    }
    ranks: list[subprocess.Popen[bytes]] = []
    with _passing_on(ranks, nproc) as deliver:
        with _born_deaf():
            for place in places:
                ranks.append(  # noqa: PERF401 — one by one, as a signal's handler counts them
                    subprocess.Popen(
                        [sys.executable, *PROGRAM, *argv],
                        env=os.environ | place | at_home,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE,
                        start_new_session=True,  # we pass on the terminal's Ctrl-C, once
                    )
                )
        deliver()
        writers = [
            threading.Thread(target=_prefix, args=(rank, source, target))
            for rank, process in enumerate(ranks)
            for source, target in (
                (process.stdout, sys.stdout.buffer),
                (process.stderr, sys.stderr.buffer),
            )
        ]
        for writer in writers:
            writer.start()
        code = _wait(ranks)
        for writer in writers:
            writer.join()
        for process in ranks:
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
    server.shutdown()
    server.server_close()
    return code


@contextlib.contextmanager
def _passing_on(
    ranks: Sequence[subprocess.Popen[bytes]], size: int
) -> Iterator[Callable[[], None]]:
    """Passes signals on to the ranks; each acts as a single process would.

    Yields a function that passes on signals that came before all `size` ranks existed.
    """
    came: list[int] = []

    def deliver() -> None:
        while came:
            number = came.pop(0)
            for process in ranks:
                process.send_signal(number)  # does nothing if the process has ended

    def pass_on(number: int, _: object) -> None:
        came.append(number)
        if len(ranks) == size:
            deliver()

    numbers = [signal.Signals[name] for name in PASSED_ON]
    # Signals that nohup or a shell's `&` made us ignore stay ignored.
    numbers = [n for n in numbers if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        yield deliver
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _born_deaf() -> Iterator[None]:
    """Blocks signals in ranks started within it, until a rank is ready for them (`settle_in`)."""
    numbers = {signal.Signals[name] for name in PASSED_ON}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def settle_in() -> None:
    """Accepts earlier signals, and makes the system stop this rank if the launcher is killed.

    Call this in a process that may be a rank, when it handles signals. The system then asks it to
    save and end.
    """
    if not (launcher := os.environ.pop(_LAUNCHER, "")):  # its own children should not see it either
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(launcher):  # the launcher is already gone
            os.kill(os.getpid(), signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.Signals[name] for name in PASSED_ON})


def _prefix(rank: int, source: BinaryIO, target: BinaryIO) -> None:
    for line in source:
        try:  # at once, so that lines of two ranks do not mix
            target.write(b"[%d] %s" % (rank, line if line.endswith(b"\n") else line + b"\n"))
            target.flush()
        except OSError:
            # The reader has left (`| head`) or the disk is full. The ranks must not wait for us, so
            # continue reading; drop also what is still in the buffer.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, target.fileno())
            os.close(null)


def _wait(ranks: Sequence[subprocess.Popen[bytes]]) -> int:
    """Waits for all ranks; ends those that remain after one has failed."""
    code, deadline, moved = 0, None, dict[int, float]()
    running = dict(enumerate(ranks))
    while running:
        for rank, process in list(running.items()):
            ended = process.poll()
            if ended is None:
                continue
            del running[rank]
            ended = 128 - ended if ended < 0 else ended
            code = code or ended
            if ended not in ORDERLY and deadline is None and running:
                deadline = time.monotonic() + GRACE_SECONDS
                _say(f"rank {rank} ended with exit code {ended}; waiting for the others to end")
        now = time.monotonic()
        if deadline:
            moved |= {rank: now for rank, p in running.items() if not is_stopped(p.pid)}
            stopped = [r for r in running if now - moved.setdefault(r, now) > STOPPED_SECONDS]
            if stopped:
                _say(f"ending {_listed(stopped)}, stopped (by SIGSTOP, say) while a rank failed")
            for rank in stopped:
                running[rank].kill()
                moved[rank] = now
        if deadline and running and now > deadline:
            _say(f"ending {_listed(running)}, still running {GRACE_SECONDS} s after a rank failed")
            for process in running.values():
                process.kill()
            deadline = None
        time.sleep(0.05)
    return code


def _listed(ranks: Iterable[int]) -> str:
    numbers = [str(rank) for rank in ranks]
    return f"rank{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"


def _say(text: str) -> None:
    tell(f"convoy: {text}")
