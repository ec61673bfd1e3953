"""The watchdog in real processes, without TensorFlow."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from convoy.utils.watchdog.heartbeats import identity
from convoy.utils.watchdog.hub import Hub

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 2.0


# One rank of a job. Files replace Horovod's broadcast and gather. It marks a place every 50 ms
# like a training loop until it is told to stop; ranks stay in step through the folder.
RANK = """
import ctypes, json, os, sys, time
from pathlib import Path
from convoy.utils.watchdog import both_sides as watcher, watchdog

folder, rank, size, how = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]

def put(name, text):
    (folder / f".{name}-{rank}").write_text(text)
    (folder / f".{name}-{rank}").rename(folder / name)

def get(name):
    if how == "proxy" and rank == 1 and name == "watchdog":
        name = "proxied"
    text = (folder / name).read_text() if (folder / name).exists() else None
    if how == "wrong token" and rank == 1 and text:
        text = json.dumps(json.loads(text) | {"token": "gue\u00dfed"})
    return text

def asked():
    return "SIGTERM" if (folder / f"signal-{rank}").exists() else ""

watcher.GRACE, watcher.PATIENCE = 0.3, 0.5
while (folder / f"late-{rank}").exists():
    time.sleep(0.01)
start_seconds = SECONDS if how == "soon" else 60.0  # three Pythons start slowly on a busy machine
watchdog.start(rank, size, SECONDS, one_host=True, start_seconds=start_seconds, put=put, get=get)
if (folder / f"load-{rank}").exists():  # as TensorFlow
    watchdog.search()
    with watchdog.hushed("loading TensorFlow"):
        put(f"began-{rank}", "")
        if how == "slow libraries":  # that hold the interpreter
            ctypes.PyDLL(None).sleep(int(2 * SECONDS))
        else:
            time.sleep(1000)
if (folder / f"refuse-{rank}").exists():
    print("flags are refused", file=sys.stderr)
    sys.exit(2)
tell = lambda missing: print("waiting for", missing, flush=True)
trouble, stopped_by = watchdog.meet(asked, tell)
print("trouble:", trouble, flush=True)
if stopped_by:
    print("stopped by", stopped_by, flush=True)
    sys.exit(75)
step = 0
watchdog.limit_data(100 if how == "slow data" else SECONDS)
while not (folder / "stop").exists() or step < int((folder / "stop").read_text()):
    step += 1
    watchdog.await_data(f"waiting for the data of step {step}")
    time.sleep(0.03)
    if (folder / f"exit-{rank}").exists():
        os._exit(0)
    if (folder / f"fail-{rank}").exists():
        print("an error of its own", file=sys.stderr)
        watchdog.fail("an error of its own")
        os._exit(1)
    if (folder / f"stick-{rank}").exists():
        time.sleep(1000)
    if (folder / f"slow-{rank}").exists():
        time.sleep(3 * SECONDS)
        (folder / f"slow-{rank}").unlink()
    if (folder / f"patient-{rank}").exists():
        with watchdog.patient("saving"):
            time.sleep(3 * SECONDS)
        (folder / f"patient-{rank}").unlink()
    watchdog.mark(f"exchanging step {step}")
    (folder / f"step-{rank}-{step}").touch()
    while not all((folder / f"step-{r}-{step}").exists() for r in range(size)):
        time.sleep(0.01)
print("done", flush=True)
"""


class Job:
    """A job whose ranks are separate processes."""

    def __init__(self, folder, size, how=""):
        self.folder = folder
        code = f"SECONDS = {SECONDS}\n{RANK}"
        self.ranks = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(folder), str(rank), str(size), how],
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(size)
        ]

    def wait_for(self, name):
        deadline = time.monotonic() + 60
        while not (self.folder / name).exists():
            assert time.monotonic() < deadline, name
            codes = [process.poll() for process in self.ranks]
            assert codes.count(None), f"all ranks ended before {name}: {codes}, {self.ends()[1]}"
            time.sleep(0.01)
        return (self.folder / name).read_text()

    def running(self):
        """Waits until all ranks train."""
        for rank in range(len(self.ranks)):
            self.wait_for(f"step-{rank}-5")

    def touch(self, name):
        self.put(name, "")

    def put(self, name, text):
        """Writes a file atomically."""
        (self.folder / f".{name}").write_text(text)
        (self.folder / f".{name}").rename(self.folder / name)

    def ends(self):
        """Waits for all ranks; returns their exit codes and stderr."""
        said = [process.communicate(timeout=60) for process in self.ranks]
        return [process.returncode for process in self.ranks], [err for _, err in said]

    def kill(self):
        for process in self.ranks:
            process.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()


@pytest.fixture
def job(tmp_path):
    """A function that starts a job of `size` ranks."""
    made = []

    def make(size=3, how=""):
        made.append(Job(tmp_path, size, how))
        return made[-1]

    yield make
    for one in made:
        one.kill()


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


# ---- before all have met ------------------------------------------------------------------------


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
