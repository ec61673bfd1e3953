"""Reads a run's history back from `log.json`, for finished, killed and running runs.

No TensorFlow. A log has one launch after another; each begins with its settings (PARAMETER). A run
that went back, to a checkpoint after a crash or by `--nan_rollback`, logs steps again: the earlier
lines for these steps are then dropped.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convoy.runtime.settings.config import Config, load_config
from convoy.runtime.settings.modes import RUN_MODES
from convoy.utils.errors import ConfigError
from convoy.utils.files import Remote, path_of

_TAG = "DLLL "


@dataclass
class History:
    """The history of a run.

    Attributes:
        steps: figures of each logged step, such as "train.loss", by step number.
        epochs: figures of each finished epoch, from training and evaluation, by epoch number.
        summary: final figures; empty if training has not finished.
        begun: seconds since 1970 of the first line, and how long each launch has logged.
        ended: seconds since 1970 of the last line.
    """

    steps: dict[int, dict[str, Any]] = field(default_factory=dict)
    epochs: dict[int, dict[str, Any]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    launches: int = 0
    seconds: float = 0.0
    begun: float | None = None
    ended: float | None = None

    def curve(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns steps and a figure's values there, both float64, without non-finite values.

        They are for the logged steps or, if there are more of them, for the epochs, each at its
        last step.
        """
        of_steps = self.steps.items()
        of_epochs = [(v["step"], v) for v in self.epochs.values() if "step" in v]
        by_step, by_epoch = (
            [(float(step), float(v[name])) for step, v in found if _is_finite(v.get(name))]
            for found in (of_steps, of_epochs)
        )
        points = np.array(max(by_step, by_epoch, key=len), np.float64).reshape(-1, 2)
        return points[:, 0], points[:, 1]

    def rank_times(self, names: tuple[str, ...]) -> np.ndarray:
        """Returns seconds per step, float64 `(ranks, len(names))`.

        They are medians over the epochs that had the last number of ranks, so that the first
        epoch's compilation does not count. NaN if nothing was measured; `(0, …)` if no epoch has
        ended.
        """
        rows = [
            [values[name] for name in names]
            for values in self.epochs.values()
            if all(isinstance(values.get(name), list) for name in names)
        ]
        rows = [row for row in rows if np.shape(row) == np.shape(rows[-1])]
        if not rows:
            return np.zeros((0, len(names)))
        table = np.array(rows, np.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # all-NaN input gives NaN
            return np.nanmedian(table, axis=0).T


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


@dataclass
class Run:
    """The parts of a run's folder that reports need."""

    folder: Any
    config: Config
    history: History
    environment: dict[str, Any]

    @property
    def name(self) -> str:
        """Returns the folder's last name."""
        return path_of(str(self.folder).rstrip("/")).name or str(self.folder)


def _several(model_dir: str) -> str:
    return "; several folders stand with spaces between them" if "," in model_dir else ""


def read_run(model_dir: str) -> Run:
    """Reads the settings, the log and the environment in a run's folder.

    Raises:
        ConfigError: there is no log of a training run.
    """
    folder = path_of(model_dir)
    try:
        config = load_config(folder / "config.yaml")
    except ConfigError as error:
        raise ConfigError(
            f"{model_dir} is not the folder of a training run: it needs config.yaml and a log"
            f" ({error}){_several(model_dir)}"
        ) from error
    log = folder / config.log_filename
    try:
        history = read_history(log)
    except OSError as error:
        raise ConfigError(f"{model_dir} has no log of its run: {log} cannot be read") from error
    if not history.launches:
        raise ConfigError(f"{log} holds no training: train first, or name another --model_dir")
    return Run(folder, config, history, _environment(folder))


def check_runs(config: Config) -> None:
    """Rejects `--mode report` without a run to report on, and flags that do not fit it.

    Raises:
        ConfigError: the message has the flag's or the folder's name.
    """
    if config.mode != "report":
        if config.runs:
            raise ConfigError("--runs is for --mode report, which compares these runs")
        return
    if config.output and not config.runs:
        raise ConfigError(
            "--output is for the page that compares --runs; a run's own report lies in its folder"
        )
    for folder in config.runs or [config.model_dir]:
        read_run(folder)


def _environment(folder: Any) -> dict[str, Any]:
    try:
        facts = json.loads((folder / "environment.json").read_text())
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def read_history(path: Any) -> History:
    """Reads a log.

    It skips lines that are not ours or were cut off by a kill, and lines that evaluation and
    benchmarks appended later. An evaluation's two lines, settings and summary, may also be in the
    middle of a run that continued meanwhile.

    Raises:
        OSError: it cannot be read.
    """
    history, training, last = History(), False, 0.0
    for line in _lines(path):
        step, data = line.get("step"), line.get("data")
        if line.get("type") != "LOG" or not isinstance(data, dict):
            continue
        if step == "PARAMETER" and data.get("mode") != "eval":
            training = data.get("mode") in RUN_MODES
        if not training or _is_of_evaluation(step, data):
            continue
        now = float(line.get("timestamp", "nan"))
        history.begun = now if history.begun is None else history.begun
        if step == "PARAMETER":
            history.launches += 1
            history.summary = {}
        else:
            history.seconds += now - last
            _take_in(history, step, data)
        history.ended = last = now
    return history


def _is_of_evaluation(step: Any, data: dict[str, Any]) -> bool:
    """Returns whether a line comes from `--mode eval`."""
    if step == "PARAMETER":
        return data.get("mode") == "eval"
    return step == [] and "eval_loss" in data and "training_loss" not in data


def _lines(path: Any) -> Iterator[dict[str, Any]]:
    path = path if isinstance(path, Remote) else path_of(path)
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                content = json.loads(line.removeprefix(_TAG))
            except ValueError:
                continue
            if isinstance(content, dict):
                yield content


def _take_in(history: History, step: Any, data: dict[str, Any]) -> None:
    match step:
        case [int(epoch), int(number)]:
            _go_back(history.steps, number)
            _go_back(history.epochs, epoch)
            history.steps[number] = data
        case [int(epoch)]:
            if "train.loss" in data:  # evaluation's line follows and adds to it
                _go_back(history.epochs, epoch)
            # Logs before 2026-11-22 do not say at which step an epoch ended.
            near = {"step": last} if (last := next(reversed(history.steps), None)) else {}
            history.epochs[epoch] = near | history.epochs.get(epoch, {}) | data
        case []:
            history.summary = data


def _go_back(entries: dict[int, Any], number: int) -> None:
    while entries and next(reversed(entries)) >= number:
        entries.popitem()


RANK_TIMES = ("train.rank_data_time", "train.rank_compute_time", "train.rank_own_time")
"""Names of lists with one number per rank: an epoch's mean seconds per step of waiting for data; of
computing, including the exchange of gradients; and of only the forward and backward passes, in
logged steps. A slow rank makes the others wait in the exchange, so all compute equally long; the
last list shows which rank is slow.
"""
