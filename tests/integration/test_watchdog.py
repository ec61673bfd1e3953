"""A rank that dies, freezes or gets stuck ends the whole job and is named first."""

import signal
import socket
import time

import pytest

# main.py with a fault in one rank, in the data of one step.
FAULTY = """
import os, signal, sys, time
from convoy.dataloader.loader import Loader
from convoy.utils.distributed import ranks
from main import main

FAULTS = {
    "stuck": lambda: time.sleep(1000),
    "exit": lambda: os._exit(0),
    "frozen": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "interpreter held": lambda: __import__("ctypes").PyDLL(None).sleep(1000),
}
batches = Loader.batches

def faulty(self, epoch, offset=0):
    for number, batch in enumerate(batches(self, epoch, offset)):
        if self.training and epoch == 1 and number == 3:
            time.sleep(1)
            if ranks.rank() == int(os.environ["FAULTY_RANK"]):
                print("FAULT", flush=True)
                FAULTS[os.environ["FAULT"]]()
        yield batch

Loader.batches = faulty
sys.exit(main(sys.argv[1:]))
"""
SEEN = {
    "stuck": "has not come as far as the others",
    "exit": "process gone",
    "frozen": "no sign of life for",
    "killed": "process gone",
    "interpreter held": "no sign of life for",
}


def end_of(convoy, path, flags, fault, rank, more=()):
    """Runs a job into a fault, prints the seconds until its end, and returns its output."""
    env = {"FAULT": fault, "FAULTY_RANK": str(rank)}
    more = (*more, "--data_wait_seconds", "20")
    running = convoy.start(*flags, *more, np=2, env=env, script=path)
    running.wait_for("epoch 1/3", timeout=240)
    ranks = running.ranks(path.name)
    assert len(ranks) == 2
    running.wait_for("FAULT", timeout=240)
    start = time.monotonic()
    done = running.finish(timeout=100)
    print(f"{fault}, rank {rank}: ended after {time.monotonic() - start:.1f} s")
    assert done.code != 0
    assert not any(process.is_running() for process in ranks), "no rank may still run"
    return done


@pytest.fixture
def flags(small_run, tiny, tmp_path):
    epochs = ("--max_epochs", "3", "--warmup_epochs", "1", "--mode", "train")
    return (*small_run, *epochs, "--data_dir", tiny, "--model_dir", tmp_path / "run")


def check(done, fault, rank):
    message = f"rank {rank} on host {socket.gethostname()}: "
    assert message + SEEN[fault] in done.text.replace("\n[", "")
    told = done.text.index(message)
    assert "Traceback" not in done.text[:told]
    assert "orovod has been shut down" not in done.text[:told]


@pytest.mark.slow
def test_a_frozen_rank_ends_the_job_and_is_named(convoy, script, flags):
    done = end_of(convoy, script(FAULTY), flags, "frozen", 1, ("--watchdog_seconds", "6"))
    check(done, "frozen", 1)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("fault", list(SEEN))
def test_every_fault_of_either_rank_ends_the_job_with_default_settings(
    convoy, script, flags, fault, rank
):
    check(end_of(convoy, script(FAULTY), flags, fault, rank), fault, rank)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("moment", [0.0, 0.3, 2.0, 4.0])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_rank_lost_while_the_job_starts_ends_it(convoy, flags, number, moment, rank):
    """Before the rank announces itself, while it loads TensorFlow, and later."""
    running = convoy.start(*flags, "--nproc", "2", "--max_epochs", "500", "--no_checkpoints")
    while len(ranks := running.ranks()) < 2:
        time.sleep(0.005)
    time.sleep(moment)
    ranks[rank].send_signal(number)
    start = time.monotonic()
    done = running.finish(timeout=60)
    assert time.monotonic() - start < 30
    assert done.code in (1, 128 + signal.SIGKILL)
    assert not any(process.is_running() for process in ranks)
    assert f"rank {rank} on host" in done.text or f"rank {rank} has not started" in done.text
    assert "Traceback" not in done.text
    assert "gloo" not in done.text
