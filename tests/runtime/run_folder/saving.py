"""Small checkpoints for tests."""

import numpy as np

from convoy.runtime.run_folder import checkpoint
from convoy.runtime.run_folder.checkpoint import Checkpoint


def contents(step, size=100):
    rng = np.random.default_rng(step)
    return Checkpoint(
        model={"a/kernel": rng.normal(size=(size, 3)).astype(np.float32), "b/n": np.int64([step])},
        ema={"a/kernel": rng.normal(size=(size, 3)).astype(np.float32)},
        optimizer={"iteration": np.array(step, np.int64), "m": np.zeros((0, 2), np.float32)},
        state={"step": step, "epoch": step // 10, "best": {"value": 0.1 + 0.2}, "names": ["é\n"]},
        config="max_epochs: 3\n",
    )


def save(folder, *steps):
    return [checkpoint.save(folder, contents(step)) for step in steps]


def steps_of(folders):
    return [int(path.name.removeprefix("step-")) for path in folders]
