"""Sets up a launch of training: data, schedule and state, new or from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from convoy.dataloader.data_loader import DataLoader
from convoy.runtime.builders.progressive_stages import (
    Stage,
    loader_of_stage,
    set_dropout,
    stage_settings,
)
from convoy.runtime.data.changed_data import with_classes_of
from convoy.runtime.run_folder.checkpoint import Checkpoint
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.lr_schedule import Schedule, build_schedule
from convoy.runtime.train.changes import check_resumed, go_on
from convoy.runtime.train.new_state import new_state
from convoy.runtime.train.sizes import Last, Sizes
from convoy.runtime.train.state import Commit, starting_point
from convoy.runtime.train.step import TrainState
from convoy.runtime.train.sums import Sums


class Start(NamedTuple):
    """What a launch of training starts with.

    Attributes:
        saved: the checkpoint that it resumes from; None for a new run.
        stage: the first stage of progressive training.
        data: the training loader.
        sums: metric sums of an epoch that had already begun.
        last: the last epoch and the last step of this launch.
    """

    saved: Checkpoint | None
    stage: Stage
    data: DataLoader
    sizes: Sizes
    schedule: Schedule
    state: TrainState
    sums: Sums
    last: Last


def begin(
    config: Config,
    commit: Commit | None,
    say: Callable[[str], None],
    stop_if_asked: Callable[[str], None],
) -> Start:
    """Opens the data, builds the model, and puts the checkpoint into it. For every rank.

    Args:
        config: the flags.
        commit: the state that an elastic job keeps in memory; it takes precedence over checkpoints.
        say: prints a line on rank 0.
        stop_if_asked: stops the run if a signal has asked for it.

    Raises:
        ConfigError, DataError, CheckpointError: the text says why.
    """
    stage = stage_settings(config, 0)
    saved = starting_point(config, commit, say)
    adapt = with_classes_of(saved.state, config, say) if saved else None
    data = loader_of_stage(config, stage, adapt=adapt)
    sizes = Sizes.of(config, data)
    schedule = build_schedule(config, sizes.images_per_step, sizes.steps_per_epoch)
    stop_if_asked("before its first step")
    changes = check_resumed(saved, config, sizes.images_per_step, sizes.steps_per_epoch)
    state = new_state(config, data.num_classes, saved, say, data.class_names)
    sums = go_on(state, saved, config, data, changes, say)
    set_dropout(state.model, stage)
    last = commit.last if commit else Last.of(config, state)
    return Start(saved, stage, data, sizes, schedule, state, sums, last)
