"""Trackers: TensorBoard, Weights & Biases and MLflow, behind one small interface (`--trackers`).

Only rank 0 tracks. Each tracker works in a thread of its own, so that a network that is slow or
down costs training nothing: calls queue up, a call that fails is a warning, and after a few in a
row the tracker is left alone. A run that goes on from a checkpoint goes on in its tracker too: the
ids are kept in `model_dir/trackers.json`. No tracker's package is imported before it is used.
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

# Name → the package that must be there; each is the name of an extra too, but for TensorBoard,
# which comes with TensorFlow.
PACKAGES = {"tensorboard": "tensorflow", "wandb": "wandb", "mlflow": "mlflow"}
KEPT = "trackers.json"
QUEUE = 2000
"""Calls that may wait for a tracker. Beyond it, calls are left out."""
PATIENCE, PAUSE, HURRY = 60.0, 20.0, 5.0
"""Seconds that the end of a run waits for all trackers together to send what they have; the same
where processes of an elastic job gather anew, which wait for each other for a minute; and where it
ends by an error or a signal: other ranks wait, or a scheduler that kills after half a minute.
"""
_THREADS = "convoy-tracker-"
MOST_FAILURES = 5
"""Failed calls in a row after which a tracker is left alone."""


def tracker_names(config: Config) -> list[str]:
    """Those of `--trackers`, and of the older `--enable_tensorboard`, each once.

    Raises:
        ConfigError: there is no such tracker.
    """
    text = config.trackers.strip()
    names = [] if text.lower() in ("", "none") else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in PACKAGES:
            raise ConfigError(
                f"--trackers {config.trackers}: there is no {name}; name {', '.join(PACKAGES)},"
                " with commas between them, or none"
            )
    return list(dict.fromkeys(["tensorboard"] * config.enable_tensorboard + names))


def check_trackers(config: Config) -> None:
    """Raises ConfigError where a tracker does not exist, its package is not installed, or it would
    have nowhere to write to.
    """
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
    """All trackers of a run; does nothing where there are none.

    Used with `with`: its end sends what is left, and waits `PATIENCE` seconds for that at most, or
    `HURRY` after an error. `unfinished` then tells whether one was left behind.

    Args:
        hurry: whether the process was asked to stop, also while it waits.
        goes_on: of an elastic job: only an error of the user's or ours is the run's end. Anything
            else is a process that was lost, or hosts that came and went; the run goes on in the
            same trackers, here or elsewhere.
    """

    def __init__(
        self,
        workers: list[Worker] | None = None,
        hurry: Callable[[], bool] = lambda: False,
        goes_on: bool = False,
    ) -> None:
        self._workers, self._hurry, self._goes_on = workers or [], hurry, goes_on

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Figures of a step, by name."""
        values = {name: float(value) for name, value in values.items()}
        self._each(lambda tracker: tracker.scalars(values, step))

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        """A picture, uint8 `(H, W, 3)`."""
        self._each(lambda tracker: tracker.image(name, pixels, step))

    def file(self, path: str) -> None:
        """A file of the run's folder, such as its report."""
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
        """Seconds that the end still waits."""
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
    """Whether a tracker still sends. At exit its package may wait for that without end."""
    return any(thread.name.startswith(_THREADS) for thread in threading.enumerate())


class Worker:
    """A tracker in its thread, which begins with the first call.

    Args:
        name: as `--trackers` has it.
        make: makes the tracker, in the thread.
        run: what it is told of the run.
        ids: the kept ones; `remember` is called with this tracker's.
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
                return  # left alone
            self._thread.start()
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._left_out += 1

    def close(self, end: str) -> None:
        """Lets the thread end once the queue is empty."""
        self._end = end
        if self._thread.is_alive():
            while self._calls.full():  # nothing more is worth waiting for
                self._calls.get_nowait()
            self._calls.put_nowait(None)

    def join(self, time_left: Callable[[], float]) -> None:
        """Waits for the thread, for as many seconds as there are left at most."""
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
        except Exception as error:  # noqa: BLE001 — told, and training goes on
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
        except Exception as error:  # noqa: BLE001 — told, and training goes on
            self._failures += 1
            if self._failures == 1:
                self._warn(f"failed ({_short(error)}): training goes on")
            elif self._failures == MOST_FAILURES:
                self._warn(f"failed {MOST_FAILURES} times in a row: it is left alone from now on")

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
    """The trackers that the flags name; none on ranks other than 0.

    Args:
        resumed: whether the run goes on from a checkpoint, and so in its trackers.
        hurry, goes_on: see `Trackers`.
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
    """The ids of a run in its trackers, in `model_dir/trackers.json`."""

    def __init__(self, model_dir: str, resumed: bool) -> None:
        self._path, self._lock = path_of(model_dir) / KEPT, threading.Lock()
        self.known: dict[str, str] = {}
        if resumed:
            try:
                self.known = dict(json.loads(self._path.read_text()))
            except (OSError, ValueError, TypeError):
                self.known = {}

    def remember(self, name: str, found: str) -> None:
        """Keeps an id. From any thread."""
        with self._lock:
            self.known[name] = found
            write_atomically(self._path, strict_json.dumps(self.known, indent=1))
