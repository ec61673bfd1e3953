"""Settles `--pretrained_from_file` of a resumed run, which reads its own checkpoint instead."""

from __future__ import annotations

import os

from convoy.runtime.fitted.choose import settings_of_the_run
from convoy.runtime.settings.config import Config
from convoy.utils.errors import ConfigError


def begun_from(config: Config) -> Config:
    """Returns the settings with the weights that a resumed run began from, for its `config.yaml`.

    A job that is queued again repeats its whole command, so the same file is accepted.

    Raises:
        ConfigError: the flag names other weights, which would not be read.
    """
    if (before := settings_of_the_run(config)) is None:
        return config  # the run begins now
    was, now = before.pretrained_from_file, config.pretrained_from_file
    if now and not _is_same(now, was):
        began = f"began from {was}" if was else "did not begin from a file"
        raise ConfigError(
            f"--pretrained_from_file {now}: the run in --model_dir {config.model_dir} {began}, and"
            " --resume_checkpoint continues from its own newest checkpoint. Leave"
            " --pretrained_from_file out, or start a new run in another --model_dir"
        )
    return config.with_(pretrained_from_file=was)


def _is_same(now: str, was: str | None) -> bool:
    """Returns whether the weights are the same: a run's folder meant its best checkpoint then.

    A file of the same name in another folder is: each job may copy it to a disk of its own.
    """
    if was is None:
        return False
    now, was = os.path.abspath(now), os.path.abspath(was)
    copied = os.path.basename(now) == os.path.basename(was) and bool(os.path.splitext(was)[1])
    return now == was or copied or was.startswith(os.path.join(now, "checkpoints", ""))
