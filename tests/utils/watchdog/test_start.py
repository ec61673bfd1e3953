"""The watchdog in real processes: before all ranks have met."""

import signal
import socket
import threading
import time

import pytest

from convoy.utils.watchdog import both_sides
from convoy.utils.watchdog.both_sides import Watchdog
from convoy.utils.watchdog.heartbeats import identity
from convoy.utils.watchdog.hub import Hub


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_a_rank_lost_while_others_load_libraries_ends_the_job(job, tmp_path, rank, how):
    for loading in range(3):
        (tmp_path / f"load-{loading}").touch()
    work = job()
    for each in range(3):
        work.wait_for(f"began-{each}")
    work.wait_for("watchdog")
    work.ranks[rank].send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
    codes, texts = work.ends()
    assert codes == [-signal.SIGKILL if r == rank else 1 for r in range(3)]
    assert f"rank {rank} on host {socket.gethostname()}: " in "".join(texts)


def test_loading_libraries_that_block_python_is_tolerated(job, tmp_path):
    for rank in (0, 1):
        (tmp_path / f"load-{rank}").touch()
    work = job(how="slow libraries")
    work.running()
    work.put("stop", "10")
    codes, texts = work.ends()
    assert codes == [0, 0, 0], texts


def test_rank_0_publishes_its_address_before_it_loads_libraries():
    """A library that blocks the interpreter would stop the thread that publishes the address."""
    store, reached = {}, threading.Event()

    def put(name, text):
        reached.wait(30)
        store[name] = text

    who = identity() | {"rank": 0}
    hub = Hub(who, 2, one_host=True, seconds=60, start_seconds=60, put=put, get=store.get)
    try:
        assert not hub.searched.wait(0.3)
        reached.set()
        assert hub.searched.wait(30)
        assert store
    finally:
        reached.set()
        hub.stop()
        hub._thread.join()
        hub._listener.close()
        hub._selector.close()


def test_a_message_waits_only_briefly_for_a_frozen_launcher(monkeypatch):
    monkeypatch.setattr(both_sides, "_STORE_SECONDS", 0.1)
    thaw = threading.Event()
    who = identity() | {"rank": 1}
    put, get = (lambda *_: None), (lambda _: thaw.wait(30))
    member = Watchdog(who, seconds=60, start_seconds=60, put=put, get=get)
    try:
        start = time.monotonic()
        assert member.is_first_to_say("damaged data")
        assert time.monotonic() - start < 10
    finally:
        thaw.set()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_never_starts_is_named(job, tmp_path, rank):
    (tmp_path / f"late-{rank}").touch()
    work = job(how="soon")
    others = [process for r, process in enumerate(work.ranks) if r != rank]
    said = [process.communicate(timeout=60) for process in others]
    assert [process.returncode for process in others] == [1, 1]
    assert any(f"rank {rank} has not started within 2 s" in err for _, err in said)
    assert any(f"waiting for rank {rank}\n" in out for out, _ in said)


@pytest.mark.parametrize("rank", [0, 1])
def test_flags_that_one_rank_refuses_end_all_ranks(job, tmp_path, rank):
    (tmp_path / f"refuse-{rank}").touch()
    codes, texts = job().ends()
    assert codes == [2 if r == rank else 1 for r in range(3)]
    assert texts[rank] == "flags are refused\n"
    assert "ended before all ranks had started" in "".join(texts)


def test_flags_that_all_ranks_refuse_are_reported_by_each_rank_itself(job, tmp_path):
    for rank in range(3):
        (tmp_path / f"refuse-{rank}").touch()
    codes, texts = job().ends()
    assert codes == [2, 2, 2]
    assert set(texts) == {"flags are refused\n"}


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_rank_ends_the_wait_of_all(job, tmp_path, rank):
    """Rank 2 never starts, and rank `rank` gets SIGTERM."""
    (tmp_path / "late-2").touch()
    (tmp_path / f"signal-{rank}").touch()
    work = job()
    for process in work.ranks[:2]:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (75, "")
        assert "stopped by SIGTERM" in out
