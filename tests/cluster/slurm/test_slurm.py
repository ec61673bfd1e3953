"""Multi-node jobs on a real Slurm of one node, with two tasks: stopped, queued again, resumed."""

import re
import sys
import time

import pytest

from convoy.runtime.run_folder import checkpoint
from convoy.runtime.settings.config import load_config

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

SMALL = (
    *("--arch", "efficientnet-test", "--image_size", "32", "--warmup_epochs", "0"),
    *("--train_batch_size", "8", "--eval_batch_size", "16", "--augmenter_name", "none"),
    *("--log_steps", "1"),
)
VARIABLES = {"PLATFORM": "cpu", "PRECISION": "FP32", "PARTITION": "main", "PYTHON": sys.executable}


class Job:
    """A submitted job and what it wrote."""

    def __init__(self, slurm, folder, *args, **variables):
        self.slurm, self.folder = slurm, folder
        said = slurm("sbatch", "--output", folder / "%x-%a.out", *args, **(VARIABLES | variables))
        self.id = re.search(r"Submitted batch job (\d+)", said)[1]

    @property
    def text(self):
        return "".join(path.read_text(errors="replace") for path in self.folder.glob("*.out"))

    def wait_for(self, pattern, times=1, seconds=600):
        """Waits until the output has had a pattern so many times."""
        deadline = time.monotonic() + seconds
        while len(re.findall(pattern, self.text)) < times:
            assert self.slurm.state(self.id) not in ("FAILED", "CANCELLED"), self.text
            assert time.monotonic() < deadline, f"no {pattern}: {self.text}"
            time.sleep(0.2)

    def finish(self, seconds=600):
        """Waits for the end, which must be a good one; returns the output."""
        deadline = time.monotonic() + seconds
        while (state := self.slurm.state(self.id)) in ("PENDING", "RUNNING", "COMPLETING"):
            assert time.monotonic() < deadline, f"{state}: {self.text}"
            time.sleep(0.5)
        print(self.text)
        assert state == "COMPLETED", self.text
        return self.text


def test_a_job_that_is_queued_again_twice_trains_each_epoch_once(slurm, tiny, tmp_path):
    """First as an administrator or a preemption does it, with SIGTERM; then as a time limit does,
    with --signal's SIGUSR1, after which the job queues itself.
    """
    run = tmp_path / "run"
    places = {"datadir": str(tiny), "checkpointdir": str(run)}
    sub = ("-N", "1", "--ntasks-per-node=2", "run_B0_multinode.sub", *SMALL, "--max_epochs", "9")
    job = Job(slurm, tmp_path, *sub, **places)
    job.wait_for(r"epoch 2/9 +step")
    slurm("scontrol", "requeue", job.id)
    job.wait_for(r"stopped by SIGTERM after step")
    job.wait_for("resuming from")
    job.wait_for(r"epoch 4/9 +step")
    slurm("scancel", "--signal=USR1", job.id)
    job.wait_for(r"stopped by SIGUSR1 after step")
    job.wait_for("queueing it again")
    job.wait_for("resuming from", times=2)
    text = job.finish()
    evaluated = [int(epoch) for epoch in re.findall(r"epoch (\d)/9 +eval loss", text)]
    assert evaluated == list(range(1, 10)), "each epoch ends once"
    state = checkpoint.read(checkpoint.latest(run)).state
    assert (state["epoch"], state["step"]) == (9, 9 * 7)  # 97 images, 16 a step


def test_a_job_whose_time_runs_out_saves_and_goes_on(slurm, tiny, tmp_path):
    places = {"datadir": str(tiny), "checkpointdir": str(tmp_path / "run")}
    limit = ("--time=2", "--signal=USR1@60", "--ntasks-per-node=2")  # Slurm may be a minute early
    job = Job(
        *(slurm, tmp_path, *limit, "run_B0_multinode.sub", *SMALL, "--max_epochs", "100000"),
        **places,
    )
    job.wait_for(r"stopped by SIGUSR1")
    job.wait_for("queueing it again")
    job.wait_for(r"resuming from|starting from the beginning", times=2)
    slurm("scancel", job.id)
    print(job.text)


def test_an_array_makes_a_run_of_each_seed(slurm, tiny, tmp_path):
    places = {"datadir": str(tiny), "checkpointdir": str(tmp_path / "runs")}
    few = ("--max_epochs", "1", "--steps_per_epoch", "2", "--optimizer_batch_size", "16")
    array = ("--array=3,5", "--ntasks-per-node=2", "run_RN50_multinode.sub", *SMALL, *few)
    Job(slurm, tmp_path, *array, **places).finish()
    deadline = time.monotonic() + 300
    while slurm("squeue", "-h").strip() and time.monotonic() < deadline:
        time.sleep(0.5)
    for seed in (3, 5):
        assert load_config(tmp_path / "runs" / str(seed) / "config.yaml").seed == seed
        assert checkpoint.latest(tmp_path / "runs" / str(seed)) is not None


def test_srun_alone_is_enough(slurm, tiny, tmp_path):
    """No script and no horovodrun."""
    flags = ("--data_dir", tiny, "--model_dir", tmp_path / "run", "--max_epochs", "1")
    said = slurm("srun", "-n", "2", sys.executable, "main.py", *SMALL, *flags)
    assert "epoch 1/1" in said
    assert checkpoint.read(checkpoint.latest(tmp_path / "run")).state["step"] == 7
