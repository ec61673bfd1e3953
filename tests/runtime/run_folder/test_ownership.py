"""One run owns a folder: real processes, real locks."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from convoy.runtime.run_folder import ownership
from convoy.runtime.run_folder.ownership import FILE, InUse, Owner, TakenOver
from convoy.utils.watchdog.heartbeats import identity

HOLD = """
import sys, time
from convoy.runtime.run_folder.ownership import Owner

owner = Owner(sys.argv[1], beat=0.2)
owner.claim()
print("mine", flush=True)
sys.stdin.read()
owner.release()
"""
BEAT = 0.1


@pytest.fixture
def holder(tmp_path):
    """Another process that owns `tmp_path`; its end is its standard input's."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"mine\n"
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def elsewhere(tmp_path):
    """Writes what a run on another machine has left, with some of it changed."""

    def write(**changes):
        owner = Owner(tmp_path)._me | {"host": "far", "pid": 7, "machine": "another-boot pid:1"}
        (tmp_path / FILE).write_text(json.dumps(owner | changes))

    return write


def claim(folder, **more):
    owner = Owner(str(folder), beat=BEAT, **more)
    owner.claim()
    return owner


def refusal(folder, **more):
    with pytest.raises(InUse) as refused:
        claim(folder, **more)
    return str(refused.value)


def test_a_second_process_is_refused_with_the_first_ones_name(tmp_path, holder):
    text = refusal(tmp_path)
    assert f"--model_dir {tmp_path} is in use: process {holder.pid} on host" in text
    assert identity()["host"] in text
    assert time.strftime("since %Y-%m-%d %H:") in text
    holder.communicate()
    assert not (tmp_path / FILE).exists(), "who ends in good order leaves nothing"
    claim(tmp_path).release()


def test_a_process_that_was_killed_leaves_nothing_to_be_removed(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert (tmp_path / FILE).exists()
    start = time.monotonic()
    with claim(tmp_path):
        assert time.monotonic() - start < 0.5, "a lock ends with its process"


def test_one_that_is_told_to_stop_is_waited_for(tmp_path):
    first, said = claim(tmp_path), []
    first.ending()
    threading.Timer(1.5, first.release).start()
    second = claim(tmp_path, say=said.append)
    assert f"looking whether process {os.getpid()}" in said[0]
    second.release()


def test_ranks_without_a_claim_leave_the_file_to_the_one_that_has_it(tmp_path):
    """Every rank of a run that is told to stop says that it is ending."""
    with claim(tmp_path) as first:
        for other in (Owner(str(tmp_path)), Owner(str(tmp_path), beat=BEAT)):
            other.ending()
            other.release()
        time.sleep(3 * BEAT)
        first.check()
        assert json.loads((tmp_path / FILE).read_text())["run"] == first._me["run"]
    Owner(str(tmp_path)).ending()
    assert not (tmp_path / FILE).exists()


def test_waiting_ends_when_this_process_is_asked_to_stop(tmp_path):
    first = claim(tmp_path)
    first.ending()
    second = claim(tmp_path, asked=lambda: True)
    assert json.loads((tmp_path / FILE).read_text())["run"] == first._me["run"]
    second.release()
    assert (tmp_path / FILE).exists()
    first.release()


def test_a_beat_from_another_machine_is_a_run_at_work(tmp_path, elsewhere):
    elsewhere()
    beats = threading.Timer(0.25, lambda: elsewhere(beat=5))
    beats.start()
    text = refusal(tmp_path)
    assert "process 7 on host far has been training there since" in text


def test_a_beat_that_stands_still_is_a_dead_run(tmp_path, elsewhere):
    elsewhere()
    start = time.monotonic()
    with claim(tmp_path):
        assert time.monotonic() - start > 4 * BEAT
        assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("dead", [False, True])
def test_a_disk_without_locks_goes_by_the_time_of_birth(tmp_path, holder, monkeypatch, dead):
    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(ownership.fcntl, "flock", unsupported)
    if dead:
        holder.kill()
        holder.wait()
        claim(tmp_path).release()
    else:
        assert f"process {holder.pid}" in refusal(tmp_path)


def test_of_two_that_come_at_once_where_there_are_no_locks_one_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(Owner, "_lock_file", lambda self: None)
    monkeypatch.setattr(ownership, "lives", lambda other: None)
    monkeypatch.setattr(ownership, "check_writable", lambda folder: None)
    outcomes = []

    def come():
        try:
            owner = Owner(str(tmp_path), beat=1.0)
            owner.claim()
            outcomes.append(owner)
        except InUse as error:
            outcomes.append(error)

    threads = [threading.Thread(target=come) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    owners = [outcome for outcome in outcomes if isinstance(outcome, Owner)]
    assert len(owners) == 1, outcomes
    owners[0].release()


def test_a_run_whose_folder_was_taken_writes_nothing_more(tmp_path, elsewhere):
    owner = claim(tmp_path)
    owner.check()
    elsewhere(run="another")
    time.sleep(4 * BEAT)
    with pytest.raises(TakenOver, match="was taken over by process 7 on host far"):
        owner.check()
    owner.release()
    assert json.loads((tmp_path / FILE).read_text())["run"] == "another", "it is not ours"


def test_processes_of_an_elastic_job_follow_each_other(tmp_path, elsewhere):
    elsewhere(job="launcher:1234")
    start = time.monotonic()
    claim(tmp_path, job="launcher:1234").release()
    assert time.monotonic() - start < 4 * BEAT


def test_object_stores_go_by_the_beat():
    pytest.importorskip("tensorflow")
    url = f"ram://owner-{os.getpid()}"
    first = claim(url)
    assert "is in use: process" in refusal(url)
    first.release()
    claim(url).release()


@pytest.mark.parametrize("text", ["", "{}", "[]", "\0", '{"run": 3}'])
def test_a_file_that_says_nothing_is_no_owner(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    claim(tmp_path).release()
