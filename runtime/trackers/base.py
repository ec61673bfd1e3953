"""The interface of trackers, and what they are told of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

MLFLOW_URI = "MLFLOW_TRACKING_URI"


@dataclass(frozen=True)
class Named:
    """What trackers are told of a run.

    Attributes:
        folder: its model_dir.
        project: W&B's project, MLflow's experiment.
        name: the run's, for people.
        settings: all flags.
    """

    folder: str
    project: str
    name: str
    settings: Mapping[str, Any]


class Tracker(Protocol):
    """One tracker. Calls come from one thread, `start` first."""

    def start(self, run: Named, known: str | None) -> str | None:
        """Begins a run, or goes on with the one whose id is `known`; returns its id, if any."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Figures of a step."""

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        """A picture, uint8 `(H, W, 3)`."""

    def file(self, path: str) -> None:
        """A file of the run's folder."""

    def finish(self, end: str) -> None:
        """Ends the run, which has "finished", was "stopped" by a signal, or "failed". Called once,
        also after `start` has failed.
        """
