"""Lets only one run own a folder at a time; `model_dir/in_use.json` names the active one.

Three signals tell whether the owner is alive, as not every file system supports each of them:

- a lock on the file (flock), which ends with the process, however it ends. It suffices if both
  processes run on one machine, and on network disks that support locks;
- the owner's pid and start time, if there are no locks (some network disks);
- the beat, a number in the file that the owner increments. Seen from another machine, and in object
  stores, an owner is dead if its beat does not change for a while.

So nobody needs to clean up by hand after a killed run. A run that was frozen so long that another
took its folder ends at its next save (`Owner.check`).
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from convoy.runtime.run_folder.checkpoint import check_writable
from convoy.utils import strict_json
from convoy.utils.errors import ConfigError, UserError
from convoy.utils.files import Remote, path_of, try_lock
from convoy.utils.watchdog.heartbeats import identity, lives

FILE = "in_use.json"
BEAT, URL_BEAT = 5.0, 15.0
"""Seconds between beats on disks and in object stores, where each beat is an upload."""
_STILL = 4  # missed beats after which the owner counts as dead
_ENDING = 60.0
"""Seconds to wait for a run that was told to stop and is writing its last checkpoint."""
_POLL = 0.5  # seconds
_LENGTH = 1000  # bytes of the file, so that a shorter text fully replaces a longer one


class InUse(UserError, RuntimeError):
    """Another run is active in the folder. The same command may work once that has ended."""


class TakenOver(UserError, RuntimeError):
    """Another run owns the folder now."""


class Owner:
    """This process's claim to a run's folder, as a context manager; for rank 0.

    Args:
        model_dir: the run's folder.
        job: key shared by the processes of an elastic job, which succeed each other as owners; ""
            in other jobs.
        beat: seconds between beats.
        say: prints a line.
        asked: returns whether this process was asked to stop, which ends the waiting.
    """

    def __init__(
        self,
        model_dir: str,
        *,
        job: str = "",
        beat: float | None = None,
        say: Callable[[str], None] = print,
        asked: Callable[[], bool] = lambda: False,
    ) -> None:
        self._model_dir, self._say, self._asked = model_dir, say, asked
        self._file = path_of(model_dir) / FILE
        self._beat = beat or (URL_BEAT if isinstance(self._file, Remote) else BEAT)
        since = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
        self._me = identity() | {"run": secrets.token_hex(8), "since": since, "job": job}
        self._me |= {"beat": 0, "ending": False}
        self._descriptor: int | None = None
        self._locked: bool | None = None
        self._thread: threading.Thread | None = None
        self._end, self._lock, self._taken = threading.Event(), threading.Lock(), False

    def claim(self) -> None:
        """Makes this process the owner.

        Waits for an owner that is about to end or may be dead; returns without a claim if this
        process is asked to stop meanwhile.

        Raises:
            InUse: another run is active there.
            CheckpointError, ConfigError: the folder is not writable.
        """
        check_writable(self._model_dir)
        begun = since = time.monotonic()
        seen, told = None, False
        while not self._asked():
            taken, other = self._look()
            now, beat = time.monotonic(), (other.get("run"), other.get("beat"))
            if taken is None and beat != seen:  # not checked yet, or alive
                taken, seen, since = None if seen is None else True, beat, now
            elif taken is None and now - since > _STILL * self._beat:
                taken = False
            if taken is False:
                self._take()
                return
            if taken and not (other.get("ending") and now - begun < _ENDING):
                self._close()
                raise InUse(self._refusal(other))
            if not told and now - begun > 2 * _POLL:
                told = True
                self._say(
                    f"--model_dir {self._model_dir}: looking whether {_named(other)} is still at"
                    " work there"
                )
            time.sleep(min(_POLL, self._beat / 2))
        self._close()

    def _take(self) -> None:
        self._write()
        if not self._locked:  # if two processes arrive at once, one wins
            time.sleep(min(1.0, self._beat))
            if not self._is_mine():
                raise InUse(self._refusal(self._read()))
        self._thread = threading.Thread(target=self._beats, name="convoy-owner", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises TakenOver if another run has taken the folder."""
        if self._taken:
            raise TakenOver(
                f"--model_dir {self._model_dir} was taken over by {_named(self._read())}, as this"
                " process gave no sign of life for a while; it ends without writing there"
            )

    def ending(self) -> None:
        """Tells a waiting run that this one is about to end.

        Without a claim it does nothing: all ranks of a run call it, and what another rank than 0
        wrote would look like a takeover.
        """
        if self._thread is None:
            return
        self._me["ending"] = True
        self._write()

    def release(self) -> None:
        """Ends the claim; does nothing if there is none."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            if self._is_mine():
                with suppress(OSError):
                    self._file.unlink(missing_ok=True)
        self._close()

    def __enter__(self) -> Owner:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _look(self) -> tuple[bool | None, dict[str, Any]]:
        """Returns whether another run has the folder, and what is known about it.

        None: its beat must tell. If no other run has it, this process holds the lock, if locks
        exist.
        """
        locked = self._locked = self._lock_file()
        other = self._read()
        if locked is False and not other:
            time.sleep(_POLL)  # it has only just started
            return True, self._read()
        if not other or (other["job"] and other["job"] == self._me["job"]):
            return False, other
        if other["machine"].split(" ")[0] == self._me["machine"].split(" ")[0] != "":
            if locked is not None:
                return not locked, other  # one kernel knows the locks of all its processes
            return lives(other), other
        return None, other

    def _lock_file(self) -> bool | None:
        """Takes the file's lock.

        Returns False if another process has it, None if there are no locks here.
        """
        if isinstance(self._file, Remote):
            return None
        while True:
            if self._descriptor is None:
                self._descriptor = self._open(self._file)
            try:
                return try_lock(self._descriptor, self._file)
            except FileNotFoundError:
                self._close()  # its owner has removed it meanwhile

    def _open(self, file: Path) -> int:
        try:
            return os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise ConfigError(
                f"--model_dir {self._model_dir}: {FILE}, which says who works there, cannot be"
                f" written ({error.strerror}); choose another folder"
            ) from error

    def _read(self) -> dict[str, Any]:
        """Returns the owner named in the file; empty if it names none."""
        with suppress(OSError, ValueError):
            found = json.loads(self._file.read_text())
            if isinstance(found, dict) and self._me.keys() <= found.keys():
                return found
        return {}

    def _write(self) -> None:
        """Writes the file; failing to write it, for example on a full disk, does not end a run."""
        with self._lock, suppress(OSError):
            text = strict_json.dumps(self._me).ljust(_LENGTH)
            if self._descriptor is None:
                self._file.write_text(text)
            else:  # in place: the lock belongs to the file, not to its name
                os.pwrite(self._descriptor, text.encode(), 0)

    def _is_mine(self) -> bool:
        return self._read().get("run", self._me["run"]) == self._me["run"]

    def _beats(self) -> None:
        while not self._end.wait(self._beat):
            if not self._is_mine():
                self._taken = True
                return
            self._me["beat"] += 1
            self._write()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _refusal(self, other: dict[str, Any]) -> str:
        since = f" since {other['since']}" if other else ""
        return (
            f"--model_dir {self._model_dir} is in use: {_named(other)} has been training there"
            f"{since}. Wait for it or stop it, or choose another folder"
        )


def _named(other: dict[str, Any]) -> str:
    if not other:
        return "another process"
    return f"process {other['pid']} on host {other['host']}"
