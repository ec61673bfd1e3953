"""Small checkpoints for tests, and ways to damage them."""

import os

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


def truncate(file):
    os.truncate(file, file.stat().st_size - 1)


def flip_a_byte(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


DAMAGE = {
    "no marker": lambda path: (path / "COMPLETE.json").unlink(),
    "empty marker": lambda path: (path / "COMPLETE.json").write_text(""),
    "marker of another kind": lambda path: (path / "COMPLETE.json").write_text("[1, 2]"),
    "marker that names nothing": lambda path: (path / "COMPLETE.json").write_text("{}"),
    "binary marker": lambda path: (path / "COMPLETE.json").write_bytes(b"\xff\xfe\x00"),
    "truncated weights": lambda path: truncate(path / "model.safetensors"),
    "flipped byte": lambda path: flip_a_byte(path / "model.safetensors"),
    "flipped byte of the optimizer": lambda path: flip_a_byte(path / "optimizer.safetensors"),
    "no state": lambda path: (path / "state.json").unlink(),
    "another state": lambda path: (path / "state.json").write_text("{}"),
}
