"""Multi-node jobs with two tasks on a real one-node Slurm: stopped, requeued, resumed."""

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
    """A submitted job and its output."""

    def __init__(self, slurm, folder, *args, **variables):
        self.slurm, self.folder = slurm, folder
        said = slurm("sbatch", "--output", folder / "%x-%a.out", *args, **(VARIABLES | variables))
        self.id = re.search(r"Submitted batch job (\d+)", said)[1]

    @property
    def text(self):
        return "".join(path.read_text(errors="replace") for path in self.folder.glob("*.out"))

    def wait_for(self, pattern, times=1, seconds=600):
        """Waits until the output contains at least `times` matches of `pattern`."""
        deadline = time.monotonic() + seconds
        while len(re.findall(pattern, self.text)) < times:
            assert self.slurm.state(self.id) not in ("FAILED", "CANCELLED"), self.text
            assert time.monotonic() < deadline, f"no {pattern}: {self.text}"
            time.sleep(0.2)

    def finish(self, seconds=600):
        """Waits until the job completes without an error; returns its output."""
        deadline = time.monotonic() + seconds
        while (state := self.slurm.state(self.id)) in ("PENDING", "RUNNING", "COMPLETING"):
            assert time.monotonic() < deadline, f"{state}: {self.text}"
            time.sleep(0.5)
        print(self.text)
        assert state == "COMPLETED", self.text
        return self.text


def test_a_job_requeued_twice_trains_each_epoch_once(slurm, tiny, tmp_path):
    """First by `scontrol requeue` (SIGTERM), as an administrator or a preemption does it, then by
    SIGUSR1, as `--signal` sends it before a time limit; after that the job requeues itself.
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
    assert evaluated == list(range(1, 10)), "each epoch must be evaluated once"
    state = checkpoint.read(checkpoint.latest(run)).state
    assert (state["epoch"], state["step"]) == (9, 9 * 7)  # 97 images, 16 per step


def test_a_job_that_reaches_its_time_limit_saves_and_resumes(slurm, tiny, tmp_path):
    places = {"datadir": str(tiny), "checkpointdir": str(tmp_path / "run")}
    # Slurm may send the signal up to a minute early.
    limit = ("--time=2", "--signal=USR1@60", "--ntasks-per-node=2")
    job = Job(
        *(slurm, tmp_path, *limit, "run_B0_multinode.sub", *SMALL, "--max_epochs", "100000"),
        **places,
    )
    job.wait_for(r"stopped by SIGUSR1")
    job.wait_for("queueing it again")
    job.wait_for(r"resuming from|starting from the beginning", times=2)
    slurm("scancel", job.id)
    print(job.text)


def test_each_task_of_an_array_trains_with_its_own_seed(slurm, tiny, tmp_path):
    """In folders whose names shells, Slurm and URLs would read otherwise."""
    runs, data = tmp_path / "r u:n [x]%j $HOME", tmp_path / "da ta%20 'y'"
    data.symlink_to(tiny)
    places = {"datadir": str(data), "checkpointdir": str(runs)}
    few = ("--max_epochs", "1", "--steps_per_epoch", "2", "--optimizer_batch_size", "16")
    array = ("--array=3,5", "--ntasks-per-node=2", "run_RN50_multinode.sub", *SMALL, *few)
    Job(slurm, tmp_path, *array, **places).finish()
    deadline = time.monotonic() + 300
    while slurm("squeue", "-h").strip() and time.monotonic() < deadline:
        time.sleep(0.5)
    for seed in (3, 5):
        assert load_config(runs / str(seed) / "config.yaml").seed == seed
        assert checkpoint.latest(runs / str(seed)) is not None


def test_srun_without_a_script_or_horovodrun_trains_with_two_ranks(slurm, tiny, tmp_path):
    flags = ("--data_dir", tiny, "--model_dir", tmp_path / "run", "--max_epochs", "1")
    said = slurm("srun", "-n", "2", sys.executable, "main.py", *SMALL, *flags)
    assert "epoch 1/1" in said
    assert checkpoint.read(checkpoint.latest(tmp_path / "run")).state["step"] == 7
