"""Runs trackers (TensorBoard, Weights & Biases, MLflow) behind one interface (`--trackers`).

Only rank 0 tracks. Each tracker has its own thread, so a slow or broken network costs training
nothing: calls queue up, a failed call is a warning, and after a few failures in a row the tracker
is abandoned. A run resumed from a checkpoint also continues in its tracker: the ids are in
`model_dir/trackers.json`. A tracker's package is imported only on use.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.util import find_spec
from types import TracebackType

import numpy as np

from convoy.runtime.settings.config import Config
from convoy.runtime.trackers.base import MLFLOW_URI, Named, Tracker
from convoy.utils import strict_json
from convoy.utils.distributed import ranks
from convoy.utils.errors import ConfigError, UserError
from convoy.utils.extras import how_to_install
from convoy.utils.files import is_url, path_of, write_atomically
from convoy.utils.signals import Preempted
from convoy.utils.watchdog import watchdog

logger = logging.getLogger("convoy.trackers")

# Name -> required package. Each name is also an extra, except TensorBoard, which comes with
# TensorFlow.
PACKAGES = {"tensorboard": "tensorflow", "wandb": "wandb", "mlflow": "mlflow"}
KEPT = "trackers.json"
QUEUE = 2000
"""Maximum number of calls that wait for a tracker. Further calls are dropped."""
PATIENCE, PAUSE, HURRY = 60.0, 20.0, 5.0
"""Seconds that all trackers together may take to send the rest: at the end of a run; when processes
of an elastic job regroup, which wait for each other for a minute; and after an error or a signal,
because other ranks wait, or a scheduler kills after half a minute.
"""
_THREADS = "convoy-tracker-"
MOST_FAILURES = 5
"""Number of failed calls in a row after which a tracker is abandoned."""


def tracker_names(config: Config) -> list[str]:
    """Returns the names in `--trackers` and the older `--enable_tensorboard`, each once.

    Raises:
        ConfigError: a tracker is unknown.
    """
    text = config.trackers.strip()
    names = [] if text.lower() in ("", "none") else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in PACKAGES:
            raise ConfigError(
                f"--trackers {config.trackers}: there is no {name}; choose from"
                f" {', '.join(PACKAGES)}, with commas between them, or none"
            )
    return list(dict.fromkeys(["tensorboard"] * config.enable_tensorboard + names))


def check_trackers(config: Config) -> None:
    """Raises ConfigError if a tracker is unknown, not installed, or has nowhere to write."""
    for name in tracker_names(config):
        if find_spec(PACKAGES[name]) is None:
            raise ConfigError(
                f"--trackers {name} needs the package {PACKAGES[name]}: {how_to_install(name)}"
            )
        if name == "mlflow" and is_url(config.model_dir) and not os.environ.get(MLFLOW_URI):
            raise ConfigError(
                f"--trackers mlflow keeps its files in local folders only, and --model_dir"
                f" {config.model_dir} is none: set {MLFLOW_URI} to your server"
            )


class Trackers:
    """All trackers of a run; does nothing if there are none.

    Use it with `with`: the block's end sends what is left, for at most `PATIENCE` seconds, or
    `HURRY` after an error. `unfinished` then tells whether one was left behind.

    Args:
        hurry: returns whether the process was asked to stop, also while it waits.
        goes_on: for an elastic job: only a user's error or a bug ends the run. Anything else is a
            lost process or a change of hosts; the run continues in the same trackers, here or
            elsewhere.
    """

    def __init__(
        self,
        workers: list[Worker] | None = None,
        hurry: Callable[[], bool] = lambda: False,
        goes_on: bool = False,
    ) -> None:
        self._workers, self._hurry, self._goes_on = workers or [], hurry, goes_on

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Sends figures of a step, by name."""
        values = {name: float(value) for name, value in values.items()}
        self._each(lambda tracker: tracker.scalars(values, step))

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Sends a picture, uint8 `(H, W, 3)`."""
        self._each(lambda tracker: tracker.image(name, pixels, step))

    def file(self, path: str) -> None:
        """Sends a file of the run's folder, such as its report."""
        self._each(lambda tracker: tracker.file(path))

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for worker in self._workers:
            worker.put(call)

    def __enter__(self) -> Trackers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if not self._workers:
            return
        watchdog.rest("ending the trackers")
        end = self._end(kind)
        patience = {"finished": PATIENCE, "paused": PAUSE}.get(end, HURRY)
        self._until = time.monotonic() + patience
        for worker in self._workers:
            worker.close("stopped" if end == "paused" else end)
        for worker in self._workers:
            worker.join(self._time_left)

    def _time_left(self) -> float:
        """Returns the seconds for which the end still waits."""
        if self._hurry():
            self._hurry = lambda: False
            self._until = min(self._until, time.monotonic() + HURRY)
        return self._until - time.monotonic()

    def _end(self, kind: type[BaseException] | None) -> str:
        if kind is None:
            return "finished"
        if issubclass(kind, (Preempted, KeyboardInterrupt)):
            return "stopped"
        return "paused" if self._goes_on and not issubclass(kind, UserError) else "failed"


def unfinished() -> bool:
    """Returns whether a tracker is still sending.

    At exit, its package may wait for that forever.
    """
    return any(thread.name.startswith(_THREADS) for thread in threading.enumerate())


class Worker:
    """A tracker in its thread, which starts with the first call.

    Args:
        name: the name in `--trackers`.
        make: makes the tracker, in the thread.
        run: the facts about the run.
        ids: the stored ids; `remember` is called with this tracker's.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Tracker],
        run: Named,
        known: str | None,
        remember: Callable[[str, str], None],
    ) -> None:
        self.name, self._make, self._run, self._known = name, make, run, known
        self._remember = remember
        self._calls: queue.Queue[Callable[[Tracker], None] | None] = queue.Queue(QUEUE)
        self._thread = threading.Thread(target=self._work, name=_THREADS + name, daemon=True)
        self._failures, self._left_out, self._end = 0, 0, "failed"

    def put(self, call: Callable[[Tracker], None]) -> None:
        """Queues a call. Never waits."""
        if not self._thread.is_alive():
            if self._thread.ident is not None:
                return  # abandoned
            self._thread.start()
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._left_out += 1

    def close(self, end: str) -> None:
        """Lets the thread end when the queue is empty."""
        self._end = end
        if self._thread.is_alive():
            while self._calls.full():  # dropping calls is better than waiting
                self._calls.get_nowait()
            self._calls.put_nowait(None)

    def join(self, time_left: Callable[[], float]) -> None:
        """Waits for the thread, for at most the seconds left."""
        if self._thread.ident is None:
            return
        while self._thread.is_alive() and (seconds := time_left()) > 0:
            self._thread.join(min(0.2, seconds))
        if self._thread.is_alive():
            self._warn("did not end in time; its last figures may be missing there")
        elif self._left_out:
            self._warn(f"was too slow: {self._left_out} of its calls were left out")

    def _work(self) -> None:
        tracker = None
        try:
            tracker = self._make()
            self._start(tracker)
            while (call := self._calls.get()) is not None and self._failures < MOST_FAILURES:
                self._try(tracker, call)
        except Exception as error:  # noqa: BLE001 — reported, and training continues
            self._warn(f"could not start ({_short(error)}): this run is not tracked there")
        finally:
            if tracker is not None:
                self._try(tracker, lambda tracker: tracker.finish(self._end))

    def _start(self, tracker: Tracker) -> None:
        found = tracker.start(self._run, self._known)
        if found and found != self._known:
            self._remember(self.name, found)

    def _try(self, tracker: Tracker, call: Callable[[Tracker], None]) -> None:
        try:
            call(tracker)
            self._failures = 0
        except Exception as error:  # noqa: BLE001 — reported, and training continues
            self._failures += 1
            if self._failures == 1:
                self._warn(f"failed ({_short(error)}): training continues")
            elif self._failures == MOST_FAILURES:
                self._warn(f"failed {MOST_FAILURES} times in a row: it is not tried again")

    def _warn(self, text: str) -> None:
        logger.warning("--trackers %s %s", self.name, text)


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 200 else f"{text[:200]}…"


def open_trackers(
    config: Config,
    resumed: bool,
    hurry: Callable[[], bool] = lambda: False,
    goes_on: bool = False,
) -> Trackers:
    """Opens the flags' trackers; none on ranks other than 0.

    Args:
        config: the flags.
        resumed: whether the run resumes from a checkpoint, and so continues in its trackers.
        hurry: see `Trackers`.
        goes_on: see `Trackers`.
    """
    names = tracker_names(config)
    if not names or ranks.rank() != 0:
        return Trackers()
    from convoy.runtime.trackers import backends

    run = Named(
        config.model_dir,
        config.tracker_project,
        config.run_name or path_of(config.model_dir.rstrip("/")).name,
        asdict(config),
    )
    ids = _Ids(config.model_dir, resumed)
    return Trackers(
        [
            Worker(name, backends.TRACKERS[name], run, ids.known.get(name), ids.remember)
            for name in names
        ],
        hurry,
        goes_on,
    )


class _Ids:
    """The ids of a run in its trackers, stored in `model_dir/trackers.json`."""

    def __init__(self, model_dir: str, resumed: bool) -> None:
        self._path, self._lock = path_of(model_dir) / KEPT, threading.Lock()
        self.known: dict[str, str] = {}
        if resumed:
            try:
                self.known = dict(json.loads(self._path.read_text()))
            except (OSError, ValueError, TypeError):
                self.known = {}

    def remember(self, name: str, found: str) -> None:
        """Stores an id. Works from any thread."""
        with self._lock:
            self.known[name] = found
            write_atomically(self._path, strict_json.dumps(self.known, indent=1))
