"""Signals and second runs, with real processes and ranks."""

import os
import signal
import time

import pytest

from convoy.runtime.run_folder import checkpoint, which_checkpoint
from main import main

PREEMPTED, GRACE = 75, 30

# main.py with an evaluation of a quarter of a second per batch, from a run's second epoch on.
SLOW = """
import sys, time
from convoy.dataloader.loader import Loader
from main import main

batches, passes = Loader.batches, []

def slow(self, epoch, offset=0):
    passes.append(self.training)
    for batch in batches(self, epoch, offset):
        if not self.training and passes.count(True) > 1:
            print("slowly", flush=True)
            time.sleep(0.25)
        yield batch

Loader.batches = slow
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def flags(small_run, tiny):
    flags = (*small_run, "--max_epochs", "3", "--warmup_epochs", "0", "--eval_batch_size", "1")
    return (*flags, "--moving_average_decay", "0.9", "--data_dir", tiny)


# main.py that gets SIGTERM while it reads its flags, which takes long.
EARLY = """
import os, signal, sys, time
from convoy.runtime.command_line import parser

def slow():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)

parser.build_parser = slow
from main import main
sys.exit(main(sys.argv[1:]))
"""


def state_of(folder):
    return checkpoint.read(folder).state


@pytest.mark.slow
def test_a_signal_to_one_rank_in_an_evaluation_stops_all_and_loses_nothing(
    convoy, script, flags, tmp_path, capfd
):
    """The checkpoint timer saves at the last step of each epoch too; one process resumes."""
    flags = (*flags, "--train_batch_size", "8", "--model_dir", tmp_path / "run")
    often = ("--checkpoint_every_minutes", "1e-9", "--gather_checkpoints")
    running = convoy.start(*flags, *often, np=2, script=script(SLOW, quickly=True))
    running.wait_for("slowly")
    ranks = running.ranks("script.py")
    start = time.monotonic()
    os.kill(ranks[1].pid, signal.SIGUSR1)
    done = running.finish(60)
    assert time.monotonic() - start < GRACE
    assert "stopped by SIGUSR1 while epoch 2 was evaluated; everything is saved" in done.text
    assert not any(process.is_running() for process in ranks)
    first, *_, last = checkpoint.complete_checkpoints(tmp_path / "run")[6:]
    assert (state_of(first)["epoch"], state_of(first)["offset"]) == (1, 0)
    assert state_of(first)["score"] == state_of(last)["best"]["value"] > 0
    assert (state_of(last)["epoch"], state_of(last)["score"]) == (2, None)

    assert main([*map(str, flags), "--resume_checkpoint"]) == 0
    text = capfd.readouterr().out
    assert text.count("epoch 2 was saved but not evaluated: evaluating it now") == 1
    assert state_of(last)["score"] is not None
    assert which_checkpoint.best(tmp_path / "run") is not None


def test_a_signal_before_the_flags_are_read_stops_the_job_with_one_line(convoy, script, tmp_path):
    done = convoy("--model_dir", tmp_path / "run", script=script(EARLY), code=PREEMPTED)
    assert done.err == "convoy: stopped by SIGTERM before its first step\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_second_run_in_the_same_folder_is_refused(convoy, flags, tmp_path, capfd):
    """It is refused with the first one's process id and changes nothing; evaluation is allowed."""
    flags = (*flags, "--model_dir", tmp_path / "run", "--max_epochs", "500")
    running = convoy.start(*flags, "--num_epochs_between_eval", "500")
    running.wait_for("epoch 2/500")
    log = (tmp_path / "run" / "log.json").read_text()
    for more in ((), ("--resume_checkpoint",)):
        code = None
        try:
            code = main([*map(str, flags), *more])
        except SystemExit as refused:
            code = refused.code
        text = capfd.readouterr().err
        assert code in (1, 2), text
        if code == 1:
            assert f"is in use: process {running.process.pid} on host" in " ".join(text.split())
    assert code == 1, "the lock must refuse it, not the existing checkpoints"
    assert (tmp_path / "run" / "log.json").read_text().startswith(log)
    assert main(["--mode", "eval", "--model_dir", str(tmp_path / "run")]) == 0
    running.process.send_signal(signal.SIGTERM)
    done = running.finish(GRACE)
    assert done.code == PREEMPTED, done.text
    assert not (tmp_path / "run" / "in_use.json").exists()
