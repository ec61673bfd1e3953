"""How ranks meet before Horovod starts: whom they look for, and what they print. No TensorFlow."""

import os

import pytest

from convoy.utils.distributed import launched
from convoy.utils.distributed.launched import StoppedEarly, begin, meet
from convoy.utils.watchdog import watchdog

HOROVODS = {
    **{"HOROVOD_RANK": "1", "HOROVOD_SIZE": "2", "HOROVOD_LOCAL_SIZE": "2"},
    **{"HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1", "HOROVOD_GLOO_RENDEZVOUS_PORT": "9"},
}
SLURMS = {"SLURM_JOB_ID": "42", "SLURM_STEP_ID": "7", "SLURM_PROCID": "0"}
SLURMS |= {"SLURM_STEP_NUM_TASKS": "2"}


@pytest.fixture
def environment(monkeypatch):
    """A function that sets the variables of a launcher in this process and removes all others."""

    def make(variables):
        for name in [name for name in os.environ if name.startswith(("HOROVOD_", "SLURM_"))]:
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    yield make
    os.environ.pop("HOROVOD_GLOO_TIMEOUT_SECONDS", None)


@pytest.mark.parametrize(
    ("changes", "starts"),
    [
        ({}, True),
        ({"HOROVOD_ELASTIC": "1"}, False),  # the elastic launcher replaces ranks itself
        ({"HOROVOD_SIZE": "1"}, False),
        ({"HOROVOD_GLOO_RENDEZVOUS_PORT": None}, False),  # under MPI ranks meet through Horovod
    ],
)
def test_ranks_look_for_each_other_only_with_a_key_value_store(
    environment, monkeypatch, changes, starts
):
    begun = []
    monkeypatch.setattr(watchdog, "start", lambda *args, **options: begun.append((args, options)))
    environment({k: v for k, v in (HOROVODS | changes).items() if v is not None})
    begin()
    assert bool(begun) == starts
    if starts:
        (rank, size, _), options = begun[0]
        assert (rank, size, options["one_host"]) == (1, 2, True)
        assert options["start_seconds"] < 30, "one launcher starts all ranks at once"


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        (HOROVODS, "waiting for rank 1 of 2"),
        (SLURMS, "waiting for rank 1 of 2 in Slurm's step 42.7; to run alone: srun -n 1, or unset"
                 " SLURM_STEP_NUM_TASKS"),
    ],
)  # fmt: skip
def test_the_missing_rank_is_printed_and_sigterm_ends_the_wait(
    environment, monkeypatch, variables, text
):
    environment(variables)
    monkeypatch.setattr(watchdog, "meet", lambda asked, tell: (tell("rank 1"), ("", asked()))[1])
    said = []
    with pytest.raises(StoppedEarly, match="SIGTERM"):
        meet(2, 20.0, lambda: "SIGTERM", said.append)
    assert said == [text]


@pytest.mark.parametrize(("seconds", "stopped"), [(20.0, 0), (0.0, 1)])
def test_gloos_timeout_is_raised_only_while_the_watchdog_runs(
    environment, monkeypatch, seconds, stopped
):
    environment(HOROVODS)
    stops = []
    monkeypatch.setattr(watchdog, "meet", lambda asked, tell: ("", ""))
    monkeypatch.setattr(watchdog, "rank", lambda: 1)
    monkeypatch.setattr(watchdog, "stop", lambda: stops.append(1))
    meet(2, seconds, lambda: "", lambda text: None)
    assert len(stops) == stopped
    assert ("HOROVOD_GLOO_TIMEOUT_SECONDS" in os.environ) == (not stopped)
    assert launched.no_watchdog("why").startswith("WARNING: no watchdog: why")
