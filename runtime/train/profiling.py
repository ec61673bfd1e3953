"""Implements `--profile_steps`: runs TensorFlow's profiler over some training steps.

TensorBoard shows the result.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from convoy.runtime.settings.config import Config
from convoy.utils.distributed import ranks
from convoy.utils.errors import ConfigError

logger = logging.getLogger("convoy.profile")


def profile_steps(config: Config) -> tuple[int, int] | None:
    """Returns the first and the last step to profile.

    Raises:
        ConfigError: the flag is not FIRST-LAST.
    """
    if config.profile_steps is None:
        return None
    found = re.fullmatch(r"(\d+)-(\d+)", config.profile_steps.strip())
    first, last = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= first <= last:
        raise ConfigError(
            f"--profile_steps {config.profile_steps}: give the first and the last step, such as"
            " 20-30; steps are counted from 1, over all epochs"
        )
    return first, last


class Profiler:
    """Profiles the flag's steps on rank 0. A failure is only a warning."""

    def __init__(self, config: Config) -> None:
        steps = profile_steps(config) if ranks.rank() == 0 else None
        self._first, self._last = steps or (1, 0)
        self._folder = f"{config.model_dir}/tensorboard"
        self._step: Any = None

    def before_step(self, step: int) -> None:
        """Call this before step number `step` waits for its data."""
        wanted = self._first <= step <= self._last
        if not wanted and self._step is None:
            return
        import tensorflow as tf

        try:
            if self._step is None:
                tf.profiler.experimental.start(self._folder)
            else:
                self._step.__exit__(None, None, None)
            self._step = tf.profiler.experimental.Trace("train", step_num=step, _r=1)
            self._step.__enter__()
            if not wanted:
                self.close()
        except (tf.errors.OpError, OSError, RuntimeError) as error:
            self._give_up(error)

    def close(self) -> None:
        """Writes the profile, unless it is already written."""
        if self._step is None:
            return
        import tensorflow as tf

        step, self._step, self._last = self._step, None, 0
        try:
            step.__exit__(None, None, None)
            tf.profiler.experimental.stop()
        except (tf.errors.OpError, OSError, RuntimeError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._step, self._last = None, 0
        logger.warning("--profile_steps failed (%s): training continues", error)
