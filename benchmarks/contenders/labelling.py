"""Labels photographs within one process, and measures how long its threads wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.contenders import starts
from benchmarks.harness.contender import Contender


class _Busy:
    """Sums the seconds that threads spend in functions."""

    def __init__(self) -> None:
        self.seconds, self._lock = 0.0, threading.Lock()

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function, whose time counts."""

        def run(*args: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args)
            finally:
                with self._lock:
                    self.seconds += time.perf_counter() - start

        return run


def waits(run: str) -> Contender:
    """Labels 1,000 JPEGs in ONNX Runtime; reports the share of its threads' time without work.

    Args:
        run: the placeholder of a run's folder.
    """
    from convoy.dataloader.plain import library
    from convoy.runtime.predict.choice import INSIDE
    from convoy.runtime.predict.labeller import Labeller
    from convoy.runtime.predict.onnx_engine import OnnxEngine
    from convoy.runtime.settings.config import Config

    folder, files = starts.prepared(run.strip("{}")), sorted(starts.prepared("thousand").iterdir())
    library.prepare(len(files))
    config = Config(mode="predict", image_size=224)
    engine, busy = OnnxEngine(Path(folder) / INSIDE, config, len(files)), _Busy()
    engine.square = busy.timed(engine.square)  # type: ignore[method-assign]
    engine.probabilities = busy.timed(engine.probabilities)  # type: ignore[method-assign]
    labeller = Labeller(engine, [str(i) for i in range(engine.classes)], config)
    found: dict[str, float] = {}

    def turn(count: int) -> None:
        for _ in range(count):
            busy.seconds, start = 0.0, time.perf_counter()
            for _ in labeller.label(files):
                pass
            whole = (time.perf_counter() - start) * engine.at_once
            found["waits"] = 100 * (1 - busy.seconds / whole)

    return Contender(turn, items=len(files), measures=lambda: found)
