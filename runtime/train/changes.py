"""Compares a resumed run's flags with its checkpoint's, and says what the changes do.

Flags may differ from those of the checkpoint's run. Most changes are wanted, and are listed;
changes with which the checkpoint cannot continue are rejected, with the flag's name. The run's
`config.yaml` then has the new settings, and the earlier ones in comments.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import yaml

from convoy.dataloader.data_loader import DataLoader
from convoy.model.catalog import get_arch
from convoy.runtime.builders.inputs import micro_steps
from convoy.runtime.run_folder.checkpoint import Checkpoint, CheckpointError
from convoy.runtime.settings import config as flags
from convoy.runtime.settings.config import Config, defaults
from convoy.runtime.settings.flag_facts import having, told_on_resume
from convoy.runtime.settings.flags import Fact
from convoy.runtime.settings.lr_schedule import build_schedule
from convoy.runtime.train.state import restore
from convoy.runtime.train.step import TrainState
from convoy.runtime.train.sums import Sums
from convoy.utils.distributed import ranks
from convoy.utils.errors import ConfigError
from convoy.utils.text import counted

_UNTIL = "# until step "


def settings_before(saved: Checkpoint) -> dict[str, Any]:
    """Returns the flags of the checkpoint's run by name, as far as they existed then."""
    return _settings_of(yaml.safe_load(saved.config) or {})


def _settings_of(written: dict[str, Any]) -> dict[str, Any]:
    known = {f.name for f in fields(Config)}
    found = {name: value for name, value in written.items() if name in known}
    if found.get("gradient_predivide_factor") == 1:
        found["gradient_predivide_factor"] = None  # 1 was its default
    return {"exif_orientation": "ignore"} | found  # value before the flag existed


def changed_flags(saved: Checkpoint, config: Config) -> dict[str, tuple[Any, Any]]:
    """Returns flags with changes that matter for training: by name, before and now."""
    written, found = yaml.safe_load(saved.config) or {}, {}
    before, made_in = _settings_of(written), str(written.get(flags.MADE_IN, ""))
    for f in fields(Config):
        if f.name not in before or f.name not in told_on_resume():
            continue
        now = getattr(config, f.name)
        was = before[f.name]
        if was != now and not (f.metadata["path"] == "path" and _is_that_place(now, made_in, was)):
            found[f.name] = was, now
    return found


def _is_that_place(path: str | None, made_in: str, before: str | None) -> bool:
    """Returns whether a path means the same place as one in a run's folder, named from there."""
    if path is None or before is None:
        return False
    return os.path.abspath(path) == os.path.abspath(os.path.join(made_in, before))


def check_resumed(
    saved: Checkpoint | None, config: Config, images_per_step: int, steps_per_epoch: int
) -> list[str]:
    """Returns lines for the user about what a resumed run does differently; none for a new run.

    Args:
        saved: the checkpoint; None for a new run.
        config: the flags.
        images_per_step: of this launch.
        steps_per_epoch: of this launch.

    Raises:
        ConfigError: the checkpoint cannot continue with these flags.
    """
    if saved is None:
        return []
    if (before := saved.state["model"]["arch"]) != (now := get_arch(config.arch).name):
        # First, because settings that depend on the architecture differ too, although nobody gave
        # them.
        raise ConfigError(
            f"--resume_checkpoint: the run in --model_dir {config.model_dir} is of {before}, and"
            f" --arch is {now}: give --arch {before}, or another --model_dir"
        )
    if config.max_epochs < saved.state["epoch"]:
        done = saved.state["epoch"]
        raise ConfigError(
            f"--max_epochs {config.max_epochs}: this run has trained {done} epochs already"
            f" ({saved.path}): give more than {done} to continue"
        )
    _check_optimizer(saved, config)
    _check_division(saved, config)
    return what_changes(saved, config, images_per_step, steps_per_epoch)


def go_on(
    state: TrainState,
    saved: Checkpoint | None,
    config: Config,
    data: DataLoader,
    changes: list[str],
    say: Callable[[str], None],
) -> Sums:
    """Restores the checkpoint of a resumed run, if there is one, into the state, and says so.

    Args:
        state: changed in place.
        saved: the checkpoint; None for a new run.
        config: the flags.
        data: the training loader.
        changes: from `check_resumed`.
        say: prints a line.

    Returns:
        This rank's sums of a started epoch and log window; zeros in a new run.

    Raises:
        CheckpointError: it lacks a variable.
    """
    if saved is None:
        if config.resume_checkpoint:
            say(f"no checkpoint in {config.model_dir} yet: starting from the beginning")
        return Sums.none()
    other_data: list[str] = []
    try:
        sums = restore(state, saved, data, other_data.append)
    except CheckpointError as error:
        raise CheckpointError("; ".join([str(error), *changes])) from error
    say(f"resuming from {saved.path or 'memory'}: epoch {state.epoch + 1}, step {state.step}")
    for line in (*other_data, *changes):
        say(line)
    return sums


def _check_optimizer(saved: Checkpoint, config: Config) -> None:
    for name, (before, now) in changed_flags(saved, config).items():
        if name not in ("optimizer", "freeze_backbone"):
            continue
        if isinstance(now, bool):
            before, now = (f"--{'' if value else 'no-'}{name}" for value in (before, now))
        else:
            before, now = (f"--{name} {value}" for value in (before, now))
        kept = saved.path or "what its processes keep in memory"
        raise ConfigError(
            f"{now}: this run was trained with {before}, and {kept} holds the optimizer's state for"
            f" that. Continue with {before}, or start a new run from these weights"
            f" (--pretrained_from_file {kept} and another --model_dir)"
        )


def _check_division(saved: Checkpoint, config: Config) -> None:
    """Raises ConfigError if training images of the run so far would be held out for validation."""
    before = settings_before(saved).get("validation_fraction")
    now = config.validation_fraction
    seeds = settings_before(saved).get("validation_seed", 0), config.validation_seed
    if now is None or (before is not None and now <= before and seeds[0] == seeds[1]):
        return
    held = "none of its images" if before is None else f"{before:g} of each class"
    held += f" (--validation_seed {seeds[0]})" if seeds[0] != seeds[1] else ""
    raise ConfigError(
        f"--validation_fraction {now:g}: this run has held out {held}, and images that it was"
        " trained on would now be in its validation split: keep the earlier value, or start a"
        " new run in another --model_dir"
    )


def what_changes(
    saved: Checkpoint, config: Config, images_per_step: int, steps_per_epoch: int
) -> list[str]:
    """Says what changes with other flags, another number of processes or another batch.

    Args:
        saved: the checkpoint.
        config: the flags.
        images_per_step: of this launch.
        steps_per_epoch: of this launch.

    Returns:
        Lines for the user; none if nothing changes.
    """
    changed = changed_flags(saved, config)
    effects = _effects(saved, config, changed, images_per_step, steps_per_epoch)
    lines = [
        f"--{name} {_shown(now)} instead of {_shown(before)}{effects.get(name, '')}"
        for name, (before, now) in changed.items()
    ]
    return lines + _of_processes(saved.state, config, images_per_step, steps_per_epoch)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return "unset" if value is None else str(value)


def _effects(
    saved: Checkpoint,
    config: Config,
    changed: dict[str, tuple[Any, Any]],
    images_per_step: int,
    steps_per_epoch: int,
) -> dict[str, str]:
    """Returns the effects of changed flags, by flag."""
    effects = {}
    if saved.ema and not config.moving_average_decay:
        effects["moving_average_decay"] = ": the moving average is dropped"
    elif config.moving_average_decay and not saved.ema:
        effects["moving_average_decay"] = ": it starts from the current weights"
    if "seed" in changed:
        effects["seed"] = ": the order of images and all other random choices change"
    of_rate = [name for name in changed if name in having(Fact.RATE)]
    rates = of_rate and _rates(saved, config, images_per_step, steps_per_epoch)
    if rates and not math.isclose(*rates, rel_tol=1e-3):
        effects[of_rate[-1]] = f": the learning rate goes from {rates[0]:.3g} to {rates[1]:.3g}"
    return effects


def _rates(
    saved: Checkpoint, config: Config, images: int, steps_per_epoch: int
) -> tuple[float, float] | None:
    """Returns the next step's learning rate as it would have been, and as it is now.

    At the end of the run, the former is that of the last step. None if it is unknown.
    """
    settings, state = settings_before(saved), saved.state
    images_before = state.get("images_per_step", images)
    steps_before = state.get("steps_per_epoch", steps_per_epoch)
    try:
        before = Config(**(defaults(settings.get("arch", Config.arch)) | settings))
        old = build_schedule(before, images_before, steps_before)
        new = build_schedule(config, images, steps_per_epoch)
    except ConfigError:
        return None
    place = state["epoch"] * steps_before + math.ceil(state["offset"] / images_before)
    place = min(place, before.max_epochs * steps_before - 1)
    place_now = state["epoch"] * steps_per_epoch + math.ceil(state["offset"] / images)
    return old.rate(place), new.rate(place_now)


def _of_processes(
    saved: dict[str, Any], config: Config, images_per_step: int, steps_per_epoch: int
) -> list[str]:
    lines, processes = [], ranks.size()
    if saved.get("processes", processes) != processes:
        lines.append(
            f"{processes} instead of {saved['processes']} processes: batch norm's running"
            " statistics continue from their mean, and dropout and stochastic depth draw other"
            " numbers"
        )
    before = saved.get("images_per_step", images_per_step)
    if before != images_per_step:
        rate = "follows" if config.lr_base_batch else "does not follow (--lr_base_batch 0)"
        place = "the place in the epoch and the order of images stay"
        if config.steps_per_epoch:
            place = "an epoch has other images (--steps_per_epoch), so some come again or later"
        lines.append(
            f"{images_per_step} images a step instead of {before}:"
            f" {counted(steps_per_epoch, 'step')} an epoch, the learning rate {rate}; {place}"
        )
    passes = micro_steps(config)
    if config.steps_per_epoch and passes > 1 and "steps_per_epoch" not in saved:
        lines.append(
            f"--steps_per_epoch {config.steps_per_epoch} counts updates: an epoch has"
            f" {steps_per_epoch} steps. The checkpoint is of a version that counted passes;"
            f" an update has {passes} of them"
        )
    return lines


def config_with_history(config: Config, saved: Checkpoint | None, before: str) -> str:
    """Returns the text of the run's `config.yaml`: all settings, and earlier values.

    Comments above the settings give different values in earlier launches, and until which step.

    Args:
        config: the flags.
        saved: the checkpoint from which this launch resumes; None for a new run.
        before: the file's previous text.
    """
    if saved is None:
        return config.to_yaml()
    notes = [line for line in before.splitlines() if line.startswith(_UNTIL)]
    if changed := changed_flags(saved, config):
        state = saved.state
        held = ", ".join(f"{name}: {_shown(value)}" for name, (value, _) in changed.items())
        note = f"{_UNTIL}{state['step']} (epoch {state['epoch'] + bool(state['offset'])}): {held}"
        notes += [note] if note not in notes else []
    return "".join(f"{note}\n" for note in notes) + config.to_yaml()
