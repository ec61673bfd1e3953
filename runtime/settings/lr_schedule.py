"""Builds and checks the learning-rate schedule that the flags describe. No TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from convoy.runtime.settings.config import Config, kinds
from convoy.runtime.settings.flags import RANGES
from convoy.utils.errors import ConfigError
from convoy.utils.optim.lr_scaling_and_decay import make_schedule, scaled_lr
from convoy.utils.optim.spans import Span, parse_span, to_steps
from convoy.utils.optional import known


@dataclass(frozen=True)
class Schedule:
    """A run's learning-rate schedule.

    Attributes:
        rate: maps the number of an update, from 0, to its learning rate.
        peak: the rate after the warm-up.
        warmup_steps: number of updates in the warm-up.
    """

    rate: Callable[[int], float]
    peak: float
    warmup_steps: int


def build_schedule(config: Config, images_per_step: int, steps_per_epoch: int) -> Schedule:
    """Builds a run's schedule.

    Args:
        config: the flags.
        images_per_step: images per update, over all processes.
        steps_per_epoch: updates per epoch.

    Raises:
        ConfigError: the spans contradict each other, for example a warm-up longer than the run.
    """
    peak = peak_rate(config, images_per_step)
    try:
        rate = make_schedule(
            **schedule_arguments(config), base_lr=peak, steps_per_epoch=steps_per_epoch
        )
    except ValueError as error:
        raise ConfigError(f"{error} (an epoch has {steps_per_epoch} steps)") from error
    warmup = to_steps(
        config.warmup_epochs, steps_per_epoch=steps_per_epoch, total_epochs=config.max_epochs
    )
    return Schedule(rate, peak, round(warmup))


def peak_rate(config: Config, images_per_step: int) -> float:
    """Returns the learning rate that `--lr_init` means for updates of `images_per_step` images."""
    if not config.lr_base_batch:
        return config.lr_init
    return scaled_lr(config.lr_init, images_per_step, config.lr_base_batch)


def check_spans(config: Config) -> set[str]:
    """Checks the flags whose values are spans, and returns the units they are given in.

    Raises:
        ConfigError: a value is not a span; the text names the flag.
    """
    units = set()
    for f in fields(Config):
        if not kinds()[f.name].is_span:
            continue
        name, value = f.name, getattr(config, f.name)
        holds, text = RANGES[f.metadata["within"] or ">= 0"]
        for span in value if isinstance(value, list) else [value] * (value is not None):
            try:
                number, unit = parse_span(span)
            except ValueError as error:
                raise ConfigError(f"--{name}: {error}") from error
            if not holds(number):
                raise ConfigError(f"--{name} must {text}, not {span}")
            units.add(unit)
    return units


def check_schedule(config: Config) -> None:
    """Rejects an impossible schedule, as far as this is known without an epoch's length.

    Raises:
        ConfigError: one sentence says why, in the units of the flags.
    """
    units = check_spans(config)
    if warmup_is_too_long(config):
        raise ConfigError(_too_long(config))
    if "steps" in units and not config.steps_per_epoch:
        return  # `build_schedule` checks it
    # Only the order of points in the run is checked, so any length of an epoch works.
    steps = config.steps_per_epoch or 1000
    try:
        make_schedule(**schedule_arguments(config), base_lr=1.0, steps_per_epoch=steps)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def warmup_is_too_long(config: Config) -> bool:
    """Returns whether the warm-up ends no earlier than the run, as far as the flags tell."""
    number, unit = parse_span(config.warmup_epochs)
    if unit == "%":
        return number >= 100
    if unit == "epochs":
        return number >= config.max_epochs
    steps = config.max_epochs * (config.steps_per_epoch or 0)
    return steps > 0 and number >= steps


def _too_long(config: Config) -> str:
    number, unit = parse_span(config.warmup_epochs)
    given, length = f"--warmup_epochs {config.warmup_epochs}", f"{config.max_epochs} epochs"
    if unit == "epochs":
        given = f"--warmup_epochs {number:g}"
    if unit == "steps":
        length = f"{config.max_epochs * known(config.steps_per_epoch)} steps"
    return (
        f"{given} does not end before the run does, after {length}: lower it, or train longer"
        " (--max_epochs)"
    )


def fitted_warmup(config: Config) -> float:
    """Returns a warm-up of a fifth of the run, in epochs, for runs too short for the usual one."""
    return config.max_epochs / 5


def schedule_arguments(config: Config) -> dict[str, Any]:
    """Returns the arguments that the flags set of `lr_scaling_and_decay.make_schedule`."""
    name, multipliers = config.lr_decay, config.lr_multipliers
    boundaries: list[Span] | None = config.lr_boundaries
    if name == "step" and multipliers is None:
        # make_schedule's "step" always divides by ten; other factors need "piecewise".
        name, boundaries = "piecewise", boundaries or [config.max_epochs * e / 9 for e in (3, 6, 8)]
        multipliers = [config.lr_decay_rate**i for i in range(len(boundaries) + 1)]
    return {
        "name": name,
        "total_epochs": config.max_epochs,
        "warmup_epochs": config.warmup_epochs,
        "decay_rate": config.lr_decay_rate,
        "decay_epochs": config.lr_decay_epochs,
        "end_lr": config.lr_end,
        "boundaries": boundaries,
        "multipliers": multipliers,
    }
