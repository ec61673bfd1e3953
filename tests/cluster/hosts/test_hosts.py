"""Training across two hosts over a good, a slow and lossy, and a cut link."""

import time

import pytest

from convoy.runtime.run_folder import checkpoint

pytestmark = [pytest.mark.multihost, pytest.mark.timeout(900)]


@pytest.fixture
def train(hosts, small_run, tiny, tmp_path):
    """A function that starts a run of `epochs` epochs of four steps."""

    def start(epochs):
        flags = (*small_run, "--train_batch_size", "16", "--max_epochs", epochs)
        run = ("--warmup_epochs", "0", "--data_dir", tiny, "--model_dir", tmp_path / "run")
        return hosts.horovodrun(*flags, *run)

    return start


def ends(hosts, job, what):
    """Waits for the end of a job that has lost a host, and of all its ranks; returns its output."""
    lost = time.monotonic()
    assert job.finish(240) != 0
    seconds = time.monotonic() - lost
    while hosts.training("convoy1") or hosts.training("convoy2"):
        assert time.monotonic() < lost + 300, "a rank still runs"
        time.sleep(0.2)
    everywhere = time.monotonic() - lost
    assert "rank 1 on host convoy2: " in job.text, "the message names the lost rank"
    print(job.text)
    print(f"{what}: {seconds:.1f} s to the command's end, {everywhere:.1f} s to the last rank's")
    return job.text


def test_two_hosts_train_together(hosts, train, tmp_path):
    job = train(2)
    job.wait_for("epoch 1/2")
    assert [len(hosts.training(name)) for name in ("convoy1", "convoy2")] == [1, 1]
    assert job.finish(300) == 0, job.text
    assert checkpoint.read(checkpoint.latest(tmp_path / "run")).state["step"] == 8
    print(job.text)


def test_training_completes_over_a_lossy_link_of_100_ms(hosts, train, tmp_path):
    hosts.link.delay, hosts.link.loss = 0.05, 0.01
    job = train(2)
    assert job.finish(600) == 0, job.text
    assert checkpoint.read(checkpoint.latest(tmp_path / "run")).state["step"] == 8
    print(job.text)


def test_a_killed_host_ends_the_job_and_leaves_a_checkpoint(hosts, train, tmp_path):
    job = train(500)
    job.wait_for("epoch 2/500")
    hosts.kill("convoy2")
    ends(hosts, job, "killed host")
    assert checkpoint.latest(tmp_path / "run") is not None


def test_a_cut_link_ends_the_job_on_both_hosts_and_leaves_a_checkpoint(hosts, train, tmp_path):
    job = train(500)
    job.wait_for("epoch 2/500")
    hosts.link.loss = 1.0
    ends(hosts, job, "cut link")
    assert checkpoint.latest(tmp_path / "run") is not None
