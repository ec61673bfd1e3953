"""Summarises a finished training run: the best epoch, the last, and the next commands.

All figures are in its log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from convoy.dataloader.errors import DataError
from convoy.runtime.data.open_split import open_split
from convoy.runtime.run_folder import checkpoint, which_checkpoint
from convoy.runtime.run_folder.checkpoint import CheckpointError
from convoy.runtime.run_folder.next_commands import command, listed, resume_command
from convoy.runtime.settings.config import Config
from convoy.runtime.train.best import best_text

if TYPE_CHECKING:  # imports TensorFlow
    from convoy.runtime.train.step import TrainState

_AVERAGE = "moving average"


@dataclass(frozen=True)
class Ended:
    """A finished run.

    Attributes:
        state: its final state.
        figures: figures of the run's summary.
        evaluated: the epoch of the evaluation figures; None: there are none.
        exhausted: whether it ended because evaluations no longer improved.
    """

    config: Config
    state: TrainState
    figures: Mapping[str, float]
    evaluated: int | None
    exhausted: bool


def outcome(ended: Ended) -> list[str]:
    """Returns lines for the terminal. Call it on rank 0, when everything is written."""
    config = ended.config
    if config.no_checkpoints:
        return [*_best(ended), *_last(ended), "nothing was saved (--no_checkpoints)"]
    return [*_best(ended), *_last(ended), *_next(ended)]


def _best(ended: Ended) -> list[str]:
    best = ended.state.best
    if not best:
        return []
    text, told = f"best: epoch {best['epoch']} of {ended.config.max_epochs}", best_text(best)
    if best["metric"] == "eval_accuracy_top_1":
        text += f", top-1 {told}"
    else:
        text += f" by {told}"
        text += f", top-1 {best['top1']:.2%}" if best.get("top1") is not None else ""
    text += f" ({_AVERAGE} of the weights)" if best["weights"] == "ema" else ""
    if ended.config.no_checkpoints:
        return [text]
    return [text, f"  {_place(ended, best)}"]


def _place(ended: Ended, best: Mapping[str, Any]) -> str:
    try:
        folder = which_checkpoint.best(ended.config.model_dir)
        if folder is not None and checkpoint.read_state(folder)["step"] == best["step"]:
            return f"in {folder}"
    except (CheckpointError, OSError, ValueError, KeyError):
        pass
    return "its checkpoint was not kept (--keep_best, --keep_checkpoints)"


def _last(ended: Ended) -> list[str]:
    config, state, figures = ended.config, ended.state, ended.figures
    number = state.epoch + bool(state.offset)
    text = f"last: epoch {number} of {config.max_epochs}"
    text += ", not to its end" if state.offset else ""
    if ended.evaluated == number and "eval_accuracy_top_1" in figures:
        text += f", top-1 {figures['eval_accuracy_top_1']:.2%}"
        if "eval_ema_accuracy_top_1" in figures:
            text += f" ({_AVERAGE} {figures['eval_ema_accuracy_top_1']:.2%})"
    elif config.mode == "train":
        text += ", not evaluated (--mode train)"
    else:
        text += ", not evaluated"
    lines = [text]
    if "training_accuracy_top_1" in figures:
        top1, loss = (figures[f"training_{name}"] for name in ("accuracy_top_1", "loss"))
        lines.append(f"  in training top-1 {top1:.2%}, loss {loss:.3f}")
    if not state.best and not config.no_checkpoints:
        newest = checkpoint.latest(config.model_dir)
        lines += [f"  in {newest}"] if newest is not None else []
    return lines


def _next(ended: Ended) -> list[str]:
    """Returns commands for what people do after a run."""
    config, here = ended.config, ("--model_dir", ended.config.model_dir)
    lines = command("--mode", "predict", *here, "--predict_dir", "FOLDER")
    if _can_be_evaluated(config):
        page = ["--report"] if find_spec("matplotlib") else []
        lines += command("--mode", "eval", *here, *page)
    lines += command("--mode", "export", *here)
    lines = listed("to label a folder of images, evaluate and export:", [lines])
    return lines + listed("to continue training:", [resume_command(config, *_longer(ended))])


def _longer(ended: Ended) -> list[str]:
    """Returns the flags without which the continued run would end at once."""
    config = ended.config
    if ended.exhausted:
        return ["--early_stopping", "null"]
    done = ended.state.epoch >= config.max_epochs
    return ["--max_epochs", str(2 * config.max_epochs)] if done else []


def _can_be_evaluated(config: Config) -> bool:
    if config.mode == "train_and_eval":
        return True
    try:
        open_split(config, "validation")
    except DataError:
        return False
    return True
