"""A run reuses what XLA compiled in an earlier run, but never code for another machine."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from convoy.utils.machine import xla

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
from convoy.utils.machine import xla
place = xla.keep(sys.argv[1])
import tensorflow as tf
weights = tf.Variable(tf.ones((64, 64)))
for _ in range(int(sys.argv[2])):  # more operations, as in a resumed run
    weights.assign(weights * 1.0)
def gradient(images, scale=None):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.nn.relu(images @ weights))
    return tape.gradient(loss, [weights])[0] * (1.0 if scale is None else scale)
step = xla.function(gradient, True)
print("found", float(step(tf.ones((64, 64)), 2.0)[0, 0]))
"""


def run(folder, before=0):
    """Runs a program that compiles; returns the number that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(before)],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "TF_XLA_FLAGS"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return re.search(r"found (\S+)", done.stdout).group(1)


def entries(folder):
    return {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*.pb")}


@pytest.mark.slow
def test_compiled_code_is_reused_after_other_operations_and_a_damaged_entry_is_replaced(tmp_path):
    folder = tmp_path / 'a folder\'s "name" with \\ in it'
    assert run(folder) == "128.0"
    kept = entries(folder)
    (entry,) = kept
    assert entry.stat().st_size > 1000
    assert run(folder, before=7) == "128.0"
    assert entries(folder) == kept
    entry.write_bytes(b"")  # as after a power failure
    assert run(folder) == "128.0"
    assert entry.stat().st_size > 1000
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine whose processor, GPU and driver a test can change."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setenv("TF_XLA_FLAGS", "")
    monkeypatch.setattr(xla, "CPUS", tmp_path / "cpuinfo")
    monkeypatch.setattr(xla, "GPUS", tmp_path / "nvidia")
    card = xla.GPUS / "gpus" / "0000:01:00.0"
    card.mkdir(parents=True)
    xla.CPUS.write_text("model name : one\nflags : avx2\ncpu MHz : 2000\nflags : avx2\n")
    (xla.GPUS / "version").write_text("NVRM version: 550\n")
    (card / "information").write_text("Model: A100\nIRQ: 7\n")
    return card


CHANGES = {
    "nothing": lambda card, patch: True,
    "clock and interrupt": lambda card, patch: (
        xla.CPUS.write_text("model name : one\nflags : avx2\ncpu MHz : 3000\n"),
        (card / "information").write_text("Model: A100\nIRQ: 8\n"),
    ),
    "instructions": lambda card, patch: xla.CPUS.write_text(
        "model name : one\nflags : avx2 avx512f\n"
    ),
    "card": lambda card, patch: (card / "information").write_text("Model: H100\n"),
    "driver": lambda card, patch: (xla.GPUS / "version").write_text("NVRM version: 560\n"),
    "options": lambda card, patch: patch.setenv("XLA_FLAGS", "--xla_gpu_autotune_level=0"),
    "version": lambda card, patch: patch.setattr("importlib.metadata.version", lambda name: "9.9"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_kind_of_machine_has_its_own_folder(machine, monkeypatch, tmp_path, change):
    before = xla.keep(str(tmp_path / "cache"), True)
    monkeypatch.setenv("TF_XLA_FLAGS", "")
    CHANGES[change](machine, monkeypatch)
    same = change in ("nothing", "clock and interrupt")
    assert (xla.keep(str(tmp_path / "cache"), True) == before) == same


def test_each_setting_of_tf32_has_its_own_folder(machine, monkeypatch, tmp_path):
    places = []
    for tf32 in (True, False, True):
        monkeypatch.setenv("TF_XLA_FLAGS", "")
        places.append(xla.keep(str(tmp_path / "cache"), tf32))
    assert places[0] == places[2] != places[1]


def test_a_world_writable_folder_is_refused(machine, tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(PermissionError, match=r"every user may write to .*chmod o-w"):
        xla.keep(str(tmp_path))
    assert "TF_XLA_FLAGS" not in os.environ or not os.environ["TF_XLA_FLAGS"]


def test_functions_work_without_a_folder_compiled_or_not():
    import tensorflow as tf

    assert float(xla.function(lambda x: x + 1, False)(tf.constant(1.0))) == 2.0
    assert float(xla.function(lambda x: x + 1, True)(tf.constant(1.0))) == 2.0
