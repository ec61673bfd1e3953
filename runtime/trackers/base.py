"""Defines the interface of trackers, and the facts about a run that they receive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

MLFLOW_URI = "MLFLOW_TRACKING_URI"


@dataclass(frozen=True)
class Named:
    """The facts about a run for trackers.

    Attributes:
        folder: its model_dir.
        project: W&B's project, MLflow's experiment.
        name: the run's name, for people.
        settings: all flags.
    """

    folder: str
    project: str
    name: str
    settings: Mapping[str, Any]


class Tracker(Protocol):
    """One tracker. All calls come from one thread, `start` first."""

    def start(self, run: Named, known: str | None) -> str | None:
        """Starts a run, or continues the one with id `known`; returns its id, if any."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Receives figures of a step."""

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Receives a picture, uint8 `(H, W, 3)`."""

    def file(self, path: str) -> None:
        """Receives a file of the run's folder."""

    def finish(self, end: str) -> None:
        """Ends the run, which has "finished", was "stopped" by a signal, or has "failed".

        Called once, also after a failed `start`.
        """
