"""Translates calls for each tracker of `--trackers`. See `runtime.trackers.workers`."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np

from convoy.runtime.trackers.base import MLFLOW_URI, Named
from convoy.utils.files import Remote, path_of
from convoy.utils.logging import TensorBoardWriter


class TensorBoard:
    """Writes events to `model_dir/tensorboard` with `tf.summary`."""

    _board: Any = None

    def start(self, run: Named, known: str | None) -> None:
        """Opens an event file in the run's folder."""
        self._board = TensorBoardWriter(f"{run.folder}/tensorboard")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Writes values; dots in names become slashes, which TensorBoard groups by."""
        self._board.scalars({name.replace(".", "/"): v for name, v in values.items()}, step)

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Writes a picture."""
        self._board.image(name.replace(".", "/"), pixels, step)

    def file(self, path: str) -> None:
        """Does nothing: the file is in the run's folder, like TensorBoard's files."""

    def finish(self, end: str) -> None:
        """Closes the file."""
        if self._board is not None:
            self._board.close()


class Wandb:
    """Writes a Weights & Biases run.

    Its own settings (WANDB_MODE=offline, WANDB_ENTITY, …) apply.
    """

    _run: Any = None

    def start(self, run: Named, known: str | None) -> str:
        """Starts a run, or continues the known one; returns its id."""
        import wandb

        self._wandb = wandb
        remote = isinstance(path_of(run.folder), Remote)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or run.project,
            name=os.environ.get("WANDB_NAME") or run.name,
            id=known or uuid.uuid4().hex,
            resume="allow",
            dir=None if remote else run.folder,
            config=dict(run.settings),
        )
        # W&B's own step only rises, but a run that goes back logs steps again.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        return self._run.id

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Logs values, with the step as one of them."""
        self._run.log({**values, "step": step})

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Logs a picture with its step."""
        self._run.log({name: self._wandb.Image(pixels), "step": step})

    def file(self, path: str) -> None:
        """Logs a page as HTML."""
        self._run.log({os.path.basename(path): self._wandb.Html(_text(path), inject=False)})

    def finish(self, end: str) -> None:
        """Ends the run; its exit code is 0 only for "finished"."""
        if self._run is not None:
            self._run.finish(exit_code=int(end != "finished"))


_MLFLOW_ENDS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MLflow:
    """Writes an MLflow run, at MLFLOW_TRACKING_URI or otherwise in `model_dir/mlruns`."""

    _id: str | None = None

    def start(self, run: Named, known: str | None) -> str:
        """Starts a run, or continues the known one; returns its id."""
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._metric = Metric
        self._client = MlflowClient(os.environ.get(MLFLOW_URI) or _store(run.folder))
        if known:
            self._client.update_run(known, status="RUNNING")
            self._id = known
            return known
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or run.project
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        self._id = self._client.create_run(experiment, run_name=run.name).info.run_id
        settings = [Param(key, str(value)[:500]) for key, value in run.settings.items()]
        for first in range(0, len(settings), 100):  # the maximum per call
            self._client.log_batch(self._id, params=settings[first : first + 100])
        return self._id

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Logs values in one batch."""
        now = int(1000 * time.time())
        metrics = [self._metric(key, value, now, step) for key, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Logs a picture as a PNG with the step in its name."""
        self._client.log_image(self._id, pixels, artifact_file=f"{name}-{step:08d}.png")

    def file(self, path: str) -> None:
        """Logs a page as an artifact."""
        self._client.log_text(self._id, _text(path), os.path.basename(path))

    def finish(self, end: str) -> None:
        """Ends the run with the status for this end."""
        if self._id is not None:
            self._client.set_terminated(self._id, _MLFLOW_ENDS[end])


def _store(folder: str) -> str:
    # MLflow 3 must be told to use files rather than a database.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    return os.path.join(os.path.abspath(folder), "mlruns")


def _text(path: str) -> str:
    return path_of(path).read_text(encoding="utf-8")


TRACKERS: dict[str, Any] = {"tensorboard": TensorBoard, "wandb": Wandb, "mlflow": MLflow}
