"""Describes a training run in a few lines before its first step."""

from __future__ import annotations

from typing import Any

from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flags import batch_number
from convoy.runtime.settings.images import train_image_size
from convoy.runtime.settings.lr_schedule import Schedule
from convoy.runtime.train.step import TrainState
from convoy.utils.distributed import ranks
from convoy.utils.text import counted, warning

_STALE = 0.05
"""Share of batch norm's initial values in its statistics at a run's end from which on it warns."""
_SPOILT = 0.1
"""Share from which on it calls evaluations wrong."""


def overview(
    config: Config,
    state: TrainState,
    schedule: Schedule,
    micro_steps: int,
    images_per_step: int,
    steps_per_epoch: int,
) -> list[str]:
    """Returns lines about model, steps, learning rate and averages.

    Args:
        config: the flags.
        state: the state at the start, or when resuming.
        schedule: the learning-rate schedule.
        micro_steps: passes per update.
        images_per_step: images per update, over all processes and passes.
        steps_per_epoch: updates per epoch.
    """
    lines = [
        _model_line(config, state),
        _steps_line(config, micro_steps, images_per_step, steps_per_epoch),
        _rate_line(config, schedule, steps_per_epoch),
    ]
    updates = steps_per_epoch * config.max_epochs
    return lines + _averages(config, state.model, updates, not config.pretrained_from_file)


def _model_line(config: Config, state: TrainState) -> str:
    start = "random weights"
    if state.step:
        start = "weights of the checkpoint"
    elif config.pretrained_from_file:
        start = f"weights of {config.pretrained_from_file}"
    parameters, size = _rounded(state.model.count_params()), train_image_size(config)
    return f"{config.arch}: {parameters} parameters, images of {size} px, {start}"


def _rounded(count: int) -> str:
    """Returns text such as "25.6 million" and "62 thousand"."""
    if count >= 999_500:
        return f"{count / 1e6:.1f} million"
    return f"{count / 1e3:.0f} thousand" if count >= 1000 else f"{count}"


def _steps_line(config: Config, micro_steps: int, images: int, steps: int) -> str:
    factors = {"passes": micro_steps, "processes": ranks.size()}
    told = " x ".join(
        [f"{n} {what}" for what, n in factors.items() if n > 1]
        + [counted(batch_number(config.train_batch_size), "image")]
    )
    made = f" ({told})" if " x " in told else ""
    prefix = f"{config.recipe}: " if config.recipe else ""
    return (
        f"{prefix}{counted(images, 'image')} an update{made},"
        f" {counted(steps, 'update')} an epoch,"
        f" {steps * config.max_epochs:,} in {counted(config.max_epochs, 'epoch')}"
    )


def _rate_line(config: Config, schedule: Schedule, steps_per_epoch: int) -> str:
    warmup = float(f"{schedule.warmup_steps / steps_per_epoch:.2g}")
    after = f" after {counted(warmup, 'epoch')} of warm-up" if schedule.warmup_steps else ""
    return f"{config.optimizer}, learning rate up to {schedule.peak:g}{after}, {config.lr_decay}"


def _averages(config: Config, model: Any, updates: int, random: bool) -> list[str]:
    """Describes the lengths of batch norm's running statistics and of the weights' average."""
    momentum = next((x.momentum for x in model.layers if hasattr(x, "moving_variance")), None)
    if momentum is None:
        return []
    text = f"batch norm evaluates with the mean of about {1 / (1 - momentum):.0f} updates"
    if config.moving_average_decay:
        length = 1 / (1 - config.moving_average_decay)
        text += f", and the moving average is over {length:.0f}"
    lines, left = [text], momentum**updates
    if random and left > _STALE:
        harm = (
            "will be wrong" if left >= _SPOILT else "may come out a little worse than they should"
        )
        text = (
            f"when this run ends, after {counted(updates, 'update')}, {left:.0%} of batch norm's"
            " running averages will still be the values that they start from, so evaluations"
            f" {harm}: train longer, or lower --bn_momentum (it is {momentum:g})"
        )
        lines.append(warning(text))
    return lines
