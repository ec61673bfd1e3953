"""Elastic jobs: processes die, join and leave, and every epoch still has each image once.

All processes are on one machine, whose two names are two hosts for Horovod: it starts no more
processes on the host of one that died, and it chooses which host gets rank 0. Each process records
its training images, which are compared with those that one process alone would have read.
"""

import collections
import hashlib
import json
from contextlib import suppress

import psutil
import pytest

from convoy.runtime.builders.inputs import build_loader
from convoy.runtime.command_line.cli import parse
from convoy.runtime.run_folder import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

EPOCHS = 4
LONG = 400  # seconds that a step may take on a busy machine
ONE, TWO = "localhost:1", "127.0.0.1:1"

# main.py, which also records the images of each step and the step at which each attempt began.
AUDIT = """
import hashlib, json, os, sys, time
from convoy.runtime.train import step, trainer

notes = open(os.path.join(os.environ["NOTES"], str(os.getpid())), "a", buffering=1)
call, init = step.Step.__call__, trainer.Trainer.__init__

def note(**facts):
    notes.write(json.dumps({"time": time.time(), **facts}) + chr(10))

def call_and_note(self, batches, *args):
    batches, epoch = list(batches), self.state.epoch
    sums = call(self, batches, *args)
    images = [
        hashlib.md5(image.tobytes()).hexdigest()
        for pixels, _, weights in batches
        for image, weight in zip(pixels.numpy(), weights.numpy())
        if weight
    ]
    note(epoch=epoch, step=self.state.step, images=images)
    return sums

def init_and_note(self, *args, **more):
    init(self, *args, **more)
    if self.chief:
        note(begin=self.state.step)

step.Step.__call__, trainer.Trainer.__init__ = call_and_note, init_and_note
EXTRA
from main import main
sys.exit(main(sys.argv[1:]))
"""

# An addition to AUDIT: an error on one rank in step 21.
FAIL = """
from convoy.dataloader.errors import DataError

def fail(self, *args):
    if self.state.step == 20 and os.environ["HOROVOD_RANK"] == "1":
        raise DataError("shard 7 of the training set is gone")
    return call_and_note(self, *args)

step.Step.__call__ = fail
"""


class Job:
    """An elastic job whose hosts can be changed while it runs."""

    def __init__(self, convoy, folder, script, flags, data):
        self.convoy, self.folder, self.script = convoy, folder, script
        self.model_dir, self.notes = folder / "run", folder / "notes"
        self.flags = [*flags, "--data_dir", data, "--model_dir", self.model_dir]
        self.discovery = folder / "hosts.sh"
        self.discovery.write_text(f"#!/bin/sh\ncat {folder}/hosts\n")
        self.discovery.chmod(0o755)
        self.notes.mkdir()

    def hosts(self, *names):
        """Sets the output of the discovery script atomically."""
        new = self.folder / "hosts.new"
        new.write_text("".join(f"{name}\n" for name in names))
        new.replace(self.folder / "hosts")

    def start(self, *more, launch=(), extra="", **env):
        """Starts the job; `launch` are flags of horovodrun, `extra` is code for the program."""
        self.path = self.script(AUDIT.replace("EXTRA", extra))
        elastic = ["--min-np", "1", "--max-np", "3", "--network-interface", "lo"]
        elastic += ["--host-discovery-script", self.discovery, *launch]
        self.running = self.convoy.start(
            *self.flags,
            *more,
            script=self.path,
            elastic=elastic,
            env={"NOTES": str(self.notes)} | env,
        )
        return self.running

    def worker(self, rank):
        """Returns the process that had this rank at first."""
        for child in self.running.children():
            with suppress(psutil.NoSuchProcess):
                ours = child.cmdline()[1:2] == [str(self.path)]
                if ours and child.environ()["HOROVOD_RANK"] == str(rank):
                    return child
        raise AssertionError(f"no rank {rank}:\n{self.running.text}")

    def trained(self):
        """Returns the images of each epoch, with counts, without steps that were rolled back."""
        lines = [line for file in self.notes.iterdir() for line in file.read_text().splitlines()]
        steps = []
        for line in sorted(map(json.loads, lines), key=lambda note: note["time"]):
            if "begin" in line:
                steps = [step for step in steps if step["step"] <= line["begin"]]
            else:
                steps.append(line)
        epochs = collections.defaultdict(collections.Counter)
        for step in steps:
            epochs[step["epoch"]].update(step["images"])
        return dict(epochs)

    def assert_whole(self):
        """Asserts that every epoch was trained with every image once, as in one process."""
        config = parse([str(flag) for flag in (*self.flags, "--resume_checkpoint")])
        loader = build_loader(config, "train")
        trained = self.trained()
        assert sorted(trained) == list(range(EPOCHS))
        for epoch, counts in trained.items():
            want = collections.Counter(
                hashlib.md5(image.tobytes()).hexdigest()
                for images, _, weights in loader.batches(epoch)
                for image, weight in zip(images.numpy(), weights.numpy(), strict=True)
                if weight
            )
            assert sum(want.values()) == 97
            assert counts == want, f"epoch {epoch + 1}"
        saved = checkpoint.read(checkpoint.latest(self.model_dir)).state
        assert (saved["epoch"], saved["offset"]) == (EPOCHS, 0)


@pytest.fixture
def job(convoy, tmp_path, script, small_run, tiny):
    flags = (*small_run, "--train_batch_size", "4", "--max_epochs", str(EPOCHS))
    flags += ("--warmup_epochs", "1", "--elastic_commit_steps", "5")
    return Job(convoy, tmp_path, script, flags, tiny)


def log_epochs(lines):
    """Returns the epochs whose means are in the log, in order."""
    return [
        line["step"][0]
        for line in lines
        if len(line.get("step", "")) == 1 and "train.loss" in line.get("data", {})
    ]


def test_a_killed_worker_costs_a_few_steps_and_no_image(job, log_lines):
    job.hosts(ONE, TWO)
    running = job.start("--moving_average_decay", "0.9", launch=("-np", "2"))
    running.wait_for("epoch 2/4  step 4/13", timeout=LONG)
    job.worker(1).kill()
    running.wait_for("rank lost: went back", timeout=LONG)
    done = running.finish(LONG)
    assert done.code == 0, done.text
    assert "now 1 process instead of 2" in done.text
    assert "4 images a step instead of 8: 25 steps an epoch" in done.text
    assert "Traceback" not in done.text
    job.assert_whole()
    lines = log_lines(job.model_dir / "log.json")
    assert log_epochs(lines) == [1, 2, 3, 4]
    assert lines[-1]["step"] == []
    assert "eval_accuracy_top_1" in lines[-1]["data"]


def test_a_killed_rank_0_costs_a_few_steps_and_no_image(job, log_lines):
    job.hosts(ONE, TWO)
    running = job.start("--enable_tensorboard", launch=("-np", "2"))
    running.wait_for("epoch 2/4  step 4/13", timeout=LONG)
    job.worker(0).kill()
    running.wait_for("rank lost: went back", timeout=LONG)
    done = running.finish(LONG)
    assert done.code == 0, done.text
    job.assert_whole()
    assert log_epochs(log_lines(job.model_dir / "log.json")) == [1, 2, 3, 4]


def test_hosts_join_and_leave_without_losing_or_repeating_an_image(job):
    job.hosts(ONE)
    running = job.start(launch=("-np", "1"))
    running.wait_for("epoch 1/4  step 3/25", timeout=LONG)
    job.hosts(ONE, TWO)
    running.wait_for("now 2 processes instead of 1", timeout=LONG)
    assert "hosts changed: continuing after step" in running.text
    running.wait_for("/13 ", timeout=LONG)
    job.hosts(ONE)
    running.wait_for("now 1 process instead of 2", timeout=LONG)
    done = running.finish(LONG)
    assert done.code == 0, done.text
    assert "127.0.0.1 is no longer one of the job's hosts" in done.text
    assert "rank lost" not in done.text
    assert "Traceback" not in done.text
    job.assert_whole()


def test_an_error_on_one_rank_ends_the_job_with_its_message(job):
    job.hosts(ONE, TWO)
    running = job.start(launch=("-np", "2"), extra=FAIL)
    done = running.finish(LONG)
    assert done.code == 1, done.text
    assert "convoy (rank 0): ended with rank 1: shard 7 of the training set is gone" in done.text
    assert "rank lost" not in done.text
    assert ">:Traceback" not in done.text, "only horovodrun may print a traceback"


def test_a_job_below_its_minimum_of_processes_ends(job):
    job.hosts(ONE, TWO)
    running = job.start(launch=("-np", "2", "--min-np", "2", "--elastic-timeout", "5"))
    running.wait_for("epoch 1/4  step 4/13", timeout=LONG)
    survivor = job.worker(0)
    job.worker(1).kill()
    done = running.finish(LONG)
    assert done.code != 0
    assert "enough resources to run at least 2 Horovod processes" in done.text
    # It may remain as a zombie where process 1 does not reap orphans, as in some containers.
    assert not survivor.is_running() or survivor.status() == psutil.STATUS_ZOMBIE


def test_the_job_continues_without_a_new_worker_that_fails_at_once(job):
    job.hosts(ONE)
    extra = 'if os.environ["HOROVOD_HOSTNAME"] == "127.0.0.1": sys.exit("no GPU here")'
    running = job.start(launch=("-np", "1"), extra=extra)
    running.wait_for("epoch 1/4  step 3/25", timeout=LONG)
    job.hosts(ONE, TWO)
    running.wait_for("no GPU here", timeout=LONG)
    done = running.finish(LONG)
    assert done.code == 0, done.text
    assert "now 1 process instead of 1" in done.text
    job.assert_whole()
