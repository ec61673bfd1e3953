"""Places of Slurm's tasks, from the variables that Slurm sets. No TensorFlow."""

import socket

import pytest

from convoy.utils.distributed import slurm_and_nproc
from convoy.utils.distributed.slurm_and_nproc import (
    DistributedError,
    check_own_name,
    ends_of_nodelist,
    slurm_place,
    tasks_per_host,
)


@pytest.mark.parametrize(
    ("text", "counts"),
    [("8", [8]), ("8(x4)", [8] * 4), ("2(x3),1", [2, 2, 2, 1]), ("1,2,1(x2)", [1, 2, 1, 1])],
)
def test_slurms_task_counts_per_host_are_expanded(text, counts):
    assert tasks_per_host(text) == counts


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("gpu1", ("gpu1", "gpu1")),
        ("gpu1,cpu2", ("gpu1", "cpu2")),
        ("gpu[003-006,9]", ("gpu003", "gpu9")),
        ("gpu[3,5],login", ("gpu3", "login")),
        ("a-1,r[1-2]n[01-16].site", ("a-1", "r2n16.site")),
    ],
)
def test_first_and_last_host_of_a_nodelist(text, ends):
    assert ends_of_nodelist(text) == ends


def task(rank, **changes):
    """Returns srun's variables for a task of `-N 2 --ntasks-per-node=2`, with this host as both."""
    return {
        "SLURM_JOB_ID": "11",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
        "SLURM_STEP_NODELIST": "localhost,localhost",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank % 2),
        "SLURM_NODEID": str(rank // 2),
    } | changes


def free_port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return str(probe.getsockname()[1])


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Resets what a process remembers of its step."""
    monkeypatch.setattr(slurm_and_nproc, "_step", None)


def test_each_task_gets_its_ranks_and_rank_0_starts_the_server(monkeypatch):
    port, tasks = free_port(), []
    for rank in range(4):
        tasks.append(slurm_place(True, task(rank, HOROVOD_GLOO_RENDEZVOUS_PORT=port)))
        assert slurm_place(True, task(rank)) is tasks[-1], "the server must start only once"
        monkeypatch.setattr(slurm_and_nproc, "_step", None)
    with socket.create_connection(("127.0.0.1", int(port)), timeout=5):
        pass  # rank 0's server
    names = ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE", "CROSS_RANK", "CROSS_SIZE")
    places = [[int(t[f"HOROVOD_{name}"]) for name in names] for t in tasks]
    assert places == [
        [0, 4, 0, 2, 0, 2],
        [1, 4, 1, 2, 0, 2],
        [2, 4, 0, 2, 1, 2],
        [3, 4, 1, 2, 1, 2],
    ]
    assert {t["HOROVOD_GLOO_RENDEZVOUS_ADDR"] for t in tasks} == {"127.0.0.1"}
    assert {t["HOROVOD_GLOO_IFACE"] for t in tasks} == {"lo"}


@pytest.mark.parametrize(
    ("mpi", "changes"),
    [
        (True, {"PMIX_RANK": "0"}),
        (False, {"OMPI_COMM_WORLD_RANK": "0"}),
        (False, {"HOROVOD_RANK": "0"}),
        (False, {"SLURM_STEP_NUM_TASKS": "1"}),
    ],
)
def test_slurm_variables_are_ignored_when_another_launcher_or_one_task_runs(mpi, changes):
    environment = task(0, **changes)
    assert slurm_place(mpi, environment) == {}


def test_a_step_that_offers_mpi_gets_no_place_until_mpi_is_known():
    assert slurm_place(None, task(1, PMIX_RANK="1")) == {}
    assert slurm_place(None, task(1))["HOROVOD_RANK"] == "1"


def test_steps_that_cannot_work_are_refused_with_a_fix():
    with pytest.raises(DistributedError, match="srun --distribution=block"):
        slurm_place(False, task(1, SLURM_LOCALID="0"))
    with pytest.raises(DistributedError, match="HOROVOD_GLOO_RENDEZVOUS_ADDR"):
        slurm_place(False, task(1, SLURM_STEP_NODELIST="no.such.host.invalid"))
    with socket.create_server(("", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(DistributedError, match="cannot be used"):
            slurm_place(False, task(0, HOROVOD_GLOO_RENDEZVOUS_PORT=port))


@pytest.mark.parametrize(
    ("name", "hosts", "message"),
    [
        ("localhost", "1", None),
        ("localhost", "2", "means (127|::).* cannot reach: put a line with its address"),
        ("no.such.host.invalid", "1", "no.such.host.invalid, has no address"),
    ],
)
def test_a_host_name_that_gloo_cannot_use_is_refused(monkeypatch, name, hosts, message):
    """Horovod itself would crash with a segmentation fault, or wait."""
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    environment = {"HOROVOD_CONTROLLER": "gloo", "HOROVOD_CROSS_SIZE": hosts}
    check_own_name({"HOROVOD_CONTROLLER": "mpi", "HOROVOD_CROSS_SIZE": "2"})
    if message is None:
        check_own_name(environment)
    else:
        with pytest.raises(DistributedError, match=message):
            check_own_name(environment)
