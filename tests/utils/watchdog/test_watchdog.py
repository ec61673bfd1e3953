"""The watchdog in real processes: a rank is lost, or late, while all train."""

import json
import os
import select
import signal
import socket
import threading
import time
from contextlib import suppress

import pytest

from tests.utils.watchdog.jobs import SECONDS


@pytest.mark.parametrize("rank", [0, 2])
def test_a_killed_rank_ends_the_job(job, rank):
    work = job()
    work.running()
    work.ranks[rank].kill()
    codes, texts = work.ends()
    assert codes == [-signal.SIGKILL if r == rank else 1 for r in range(3)]
    lost = f"rank {rank} on host {socket.gethostname()}: process gone"
    assert "".join(texts).count(lost) == 1, "exactly one rank must report it"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_exits_early_ends_the_job(job, rank):
    """This includes exit code 0: the other ranks cannot continue without it."""
    work = job()
    work.running()
    work.touch(f"exit-{rank}")
    codes, texts = work.ends()
    assert codes == [0 if r == rank else 1 for r in range(3)]
    assert f"rank {rank} on host" in texts[1 - rank]
    assert "process gone" in texts[1 - rank]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_frozen_rank_ends_the_job_and_is_killed(job, rank):
    work = job()
    work.running()
    os.kill(work.ranks[rank].pid, signal.SIGSTOP)
    codes, texts = work.ends()
    assert codes == [-signal.SIGKILL if r == rank else 1 for r in range(3)]
    lost = f"rank {rank} on host {socket.gethostname()}: no sign of life for"
    assert "".join(texts).count(lost) == 1, "exactly one rank must report it"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_with_a_stuck_main_thread_ends_the_job(job, rank):
    work = job()
    work.running()
    work.touch(f"stick-{rank}")
    codes, texts = work.ends()
    assert codes == [1, 1, 1]
    assert f"rank {rank} on host" in texts[0], "rank 0 must report it, even about itself"
    assert "last seen waiting for the data of step" in texts[0]
    assert texts[1] == texts[2] == "", "only rank 0 must report it"


def test_a_rank_with_an_error_is_reported_with_it_and_not_as_dead(job):
    work = job()
    work.running()
    work.touch("fail-1")
    codes, texts = work.ends()
    assert codes == [1, 1, 1]
    assert texts[1] == "an error of its own\n"
    assert "rank 1 on host" in texts[0]
    assert "stopped by an error: an error of its own" in texts[0]
    assert "process gone" not in "".join(texts)


def test_an_error_that_all_ranks_meet_is_reported_once(job):
    work = job()
    work.running()
    work.touch("alike")
    codes, texts = work.ends()
    assert codes == [1, 1, 1]
    assert sorted(texts)[:2] == ["", ""]
    assert sorted(texts)[2].endswith("): damaged data\n")


def test_a_long_save_slow_data_and_a_normal_end_are_tolerated(job):
    work = job(how="slow data")
    work.running()
    names = ("patient-0", "slow-1")
    for name in names:
        work.touch(name)
    deadline = time.monotonic() + 60
    while any((work.folder / name).exists() for name in names):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    reached = max(int(path.name.rsplit("-")[-1]) for path in work.folder.glob("step-*"))
    work.put("stop", str(reached + 10))  # all end after the same step, but not at the same time
    codes, texts = work.ends()
    assert codes == [0, 0, 0], texts
    assert texts == ["", "", ""]


class Proxy:
    """Forwards bytes between a rank and rank 0; after `cut` connections stay open but silent."""

    def __init__(self, target):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.place = list(self.listener.getsockname())
        self.target, self.cut = tuple(target), threading.Event()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        near = self.listener.accept()[0]
        far = socket.create_connection(self.target)
        with self.listener, near, far:
            other, open_ = {near: far, far: near}, [near, far]
            while open_:
                for end in select.select(open_, [], [])[0]:
                    data = end.recv(4096)
                    if not data:
                        open_.remove(end)
                    elif not self.cut.is_set():
                        with suppress(OSError):
                            other[end].sendall(data)


def test_a_rank_cut_off_from_the_network_ends_the_job_on_both_sides(job):
    work = job(how="proxy")
    address = json.loads(work.wait_for("watchdog"))
    proxy = Proxy(address["places"][0])
    work.put("proxied", json.dumps(address | {"places": [proxy.place]}))
    work.running()
    proxy.cut.set()
    codes, texts = work.ends()
    proxy.thread.join()
    # On one machine each side may kill the other, which looks frozen.
    assert all(code in (1, -signal.SIGKILL) for code in codes)
    assert "rank 1 on host" in texts[0] or "rank 0 on host" in texts[1]
    assert "cut off from the network" in "".join(texts)


def test_a_rank_that_cannot_reach_rank_0_turns_the_watchdog_off_with_a_reason(job):
    work = job(size=2, how="wrong token")
    work.running()
    work.touch("exit-1")  # no watchdog sees it
    work.ranks[1].wait(30)
    time.sleep(2 * SECONDS)
    assert work.ranks[0].poll() is None
    work.ranks[0].kill()
    for process in work.ranks:
        out, _ = process.communicate(timeout=30)
        assert "rank 1 on host" in out
        assert "cannot reach rank 0" in out


def test_a_job_suspended_as_a_whole_continues(job):
    """It is suspended for longer than the watchdog waits for one rank and resumes rank by rank."""
    work = job()
    work.running()
    for process in work.ranks:
        process.send_signal(signal.SIGSTOP)
    time.sleep(1.5 * SECONDS)
    for process in reversed(work.ranks):
        process.send_signal(signal.SIGCONT)
        time.sleep(SECONDS / 4)
    reached = max(int(path.name.rsplit("-")[-1]) for path in work.folder.glob("step-*"))
    work.wait_for(f"step-0-{reached + 10}")
    work.put("stop", str(reached + 40))
    codes, texts = work.ends()
    assert codes == [0, 0, 0], texts
    assert texts == ["", "", ""]
