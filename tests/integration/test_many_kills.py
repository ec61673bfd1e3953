"""Hundreds of SIGKILLs at random moments, many of them during a save.

`CONVOY_KILLS` sets the number, and `CONVOY_KILLS_SEED` repeats the moments of an earlier run as
well as the machine allows. Runs are forked from one process that has imported TensorFlow but not
used it, so that each saves the import.
"""

import hashlib
import json
import os
import random
import select
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from convoy.runtime.run_folder import checkpoint

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("CONVOY_KILLS", "200"))
SEED = int(os.environ.get("CONVOY_KILLS_SEED", random.randrange(10**9)))
STEPS_A_LIFE = 7  # on average at most, or the run would finish too early
STEPS_PER_EPOCH = 20
OFTEN = ("--checkpoint_every_minutes", "1e-9")  # after every step

FORK_SERVER = """
import json, os, sys, threading
import keras, tensorflow
import convoy.runtime.runner, convoy.runtime.train.trainer
from main import main
from tensorflow.python.eager import context

assert context._context is None or not context._context._initialized, "fork before TensorFlow runs"
assert threading.active_count() == 1
print("ready", flush=True)
for line in sys.stdin:
    arguments, output = json.loads(line)
    pid = os.fork()
    if pid == 0:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        try:
            code = main(arguments)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(99 if "code" not in globals() else code)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Lives:
    """Starts runs of `main.py` one after another."""

    def __init__(self, output):
        self.output = output
        self.server = subprocess.Popen(
            [sys.executable, "-c", FORK_SERVER],
            cwd=ROOT,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        assert self.server.stdout.readline() == b"ready\n"
        self.pid = None

    def start(self, arguments):
        line = json.dumps([[str(a) for a in arguments], str(self.output)])
        self.server.stdin.write(line.encode() + b"\n")
        self.pid = int(self.server.stdout.readline())

    def ended(self):
        return bool(select.select([self.server.stdout], [], [], 0)[0])

    def end(self, kill=True):
        """Returns the exit code of the current run, after a SIGKILL unless `kill` is False."""
        if kill and not self.ended():
            os.kill(self.pid, signal.SIGKILL)
        return int(self.server.stdout.readline())

    def close(self):
        self.server.stdin.close()
        self.server.wait(60)
        self.server.stdout.close()


def folders(model_dir):
    return {path.name for path in (model_dir / "checkpoints").glob("step-*")}


class Reaper:
    """Chooses the moments at which runs are killed."""

    def __init__(self, rng):
        self.rng, self.starts, self.saves = rng, [5.0], [0.1]

    def wait(self, lives, model_dir):
        """Returns when the run should be killed, with the kind of moment.

        The moment is during the start, or after some saves: at any point between two of them, or
        just after one began.
        """
        kind = self.rng.choice(["any time", "between", "between", "saving"])
        start, seen = time.monotonic(), folders(model_dir)
        until = start + self.rng.uniform(0, 1.5 * statistics.mean(self.starts[-20:]))
        wanted, last = self.rng.randint(1, STEPS_A_LIFE), start
        while not lives.ended():
            now = time.monotonic()
            assert now - start < 600, "a run does not reach its first save"
            if kind == "any time" and now > until:
                return kind
            new = folders(model_dir) - seen
            if new:
                (self.starts if last == start else self.saves).append(now - last)
                last, wanted, seen = now, wanted - len(new), seen | new
            if kind != "any time" and wanted <= 0:
                longest = 0.01 if kind == "saving" else 1.5 * statistics.mean(self.saves[-20:])
                time.sleep(self.rng.uniform(0, longest))
                return kind
            time.sleep(0.001)
        return "ended"


def verify(model_dir):
    """Checks all checkpoints that a reader would accept.

    Returns the step of the newest one, or -1, and the number of unfinished folders.
    """
    whole = checkpoint.complete_checkpoints(model_dir)
    for path in whole:
        for name, facts in json.loads((path / checkpoint.MARKER).read_text()).items():
            data = (path / name).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (
                facts["size"],
                facts["sha256"],
            ), f"{path / name} is damaged"
        saved = checkpoint.read(path)
        assert f"step-{saved.state['step']:08d}" == path.name
        assert all(np.isfinite(array).all() for array in saved.model.values())
    assert checkpoint.latest(model_dir) == (whole[-1] if whole else None)
    step = int(whole[-1].name.removeprefix("step-")) if whole else -1
    return step, len(folders(model_dir)) - len(whole)


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_no_kill_damages_a_checkpoint_or_changes_the_result(convoy, small_run, tiny, tmp_path):
    epochs = -(-KILLS * (STEPS_A_LIFE + 3) // STEPS_PER_EPOCH) + 1
    flags = (
        *small_run,
        *("--mode", "train", "--max_epochs", epochs, "--steps_per_epoch", STEPS_PER_EPOCH),
        *("--moving_average_decay", "0.9", "--dropout", "0.3", "--warmup_epochs", "1"),
        *("--data_dir", tiny, "--log_steps", "50"),
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    convoy(*flags, "--model_dir", whole, timeout=3600)
    print(f"CONVOY_KILLS_SEED={SEED}, {epochs * STEPS_PER_EPOCH} steps")
    lives, reaper = Lives(tmp_path / "output"), Reaper(random.Random(SEED))
    start, newest, unfinished, kinds = time.monotonic(), -1, 0, []
    arguments = (*flags, *OFTEN, "--model_dir", killed, "--resume_checkpoint")
    while len(kinds) < KILLS:
        lives.start(arguments)
        kind = reaper.wait(lives, killed)
        code = lives.end()
        assert code == -signal.SIGKILL, (kind, code, lives.output.read_text()[-3000:])
        kinds.append(kind)
        step, left = verify(killed)
        assert step >= newest, "saved progress must not be lost"
        newest, unfinished = step, unfinished + bool(left)
        if len(kinds) % 10 == 0:
            seconds = time.monotonic() - start
            text = f"{len(kinds)} kills in {seconds:.0f} s: step {newest}, {unfinished} in a save"
            print(text, flush=True)
    lives.start(arguments)
    assert lives.end(kill=False) == 0, lives.output.read_text()[-3000:]
    lives.close()
    assert unfinished > 0 or KILLS < 50, "some kills must come during a save"
    one, other = (checkpoint.read(checkpoint.latest(folder)) for folder in (whole, killed))
    assert one.state["step"] == other.state["step"] == epochs * STEPS_PER_EPOCH
    for part in ("model", "ema", "optimizer"):
        arrays, others = getattr(one, part), getattr(other, part)
        assert set(arrays) == set(others)
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, others[name], err_msg=name)
