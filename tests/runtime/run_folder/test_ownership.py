"""Only one run at a time owns a model_dir: real processes, real locks."""

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
    """Another process that owns `tmp_path` until its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"mine\n"
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def elsewhere(tmp_path):
    """Writes the owner file of a run on another machine, with `changes`."""

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


def test_a_second_run_is_refused_and_told_the_firsts_process_id_and_host(tmp_path, holder):
    text = refusal(tmp_path)
    assert f"--model_dir {tmp_path} is in use: process {holder.pid} on host" in text
    assert identity()["host"] in text
    assert time.strftime("since %Y-%m-%d %H:") in text
    holder.communicate()
    assert not (tmp_path / FILE).exists(), "a run that ends normally removes its file"
    claim(tmp_path).release()


def test_the_folder_of_a_killed_run_can_be_claimed_at_once(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert (tmp_path / FILE).exists()
    start = time.monotonic()
    with claim(tmp_path):
        assert time.monotonic() - start < 0.5, "a file lock ends with its process"


def test_a_new_run_waits_for_one_that_is_stopping(tmp_path):
    first, said = claim(tmp_path), []
    first.ending()
    threading.Timer(1.5, first.release).start()
    second = claim(tmp_path, say=said.append)
    assert f"looking whether process {os.getpid()}" in said[0]
    second.release()


def test_only_the_rank_that_owns_the_folder_changes_its_file(tmp_path):
    """Every rank calls `ending` when its run is asked to stop."""
    with claim(tmp_path) as first:
        for other in (Owner(str(tmp_path)), Owner(str(tmp_path), beat=BEAT)):
            other.ending()
            other.release()
        time.sleep(3 * BEAT)
        first.check()
        assert json.loads((tmp_path / FILE).read_text())["run"] == first._me["run"]
    Owner(str(tmp_path)).ending()
    assert not (tmp_path / FILE).exists()


def test_a_request_to_stop_ends_the_wait_for_another_run(tmp_path):
    first = claim(tmp_path)
    first.ending()
    second = claim(tmp_path, asked=lambda: True)
    assert json.loads((tmp_path / FILE).read_text())["run"] == first._me["run"]
    second.release()
    assert (tmp_path / FILE).exists()
    first.release()


def test_a_heartbeat_from_another_machine_means_the_folder_is_in_use(tmp_path, elsewhere):
    elsewhere()
    beats = threading.Timer(0.25, lambda: elsewhere(beat=5))
    beats.start()
    text = refusal(tmp_path)
    assert "process 7 on host far has been training there since" in text


def test_a_run_on_another_machine_without_heartbeat_counts_as_dead(tmp_path, elsewhere):
    elsewhere()
    start = time.monotonic()
    with claim(tmp_path):
        assert time.monotonic() - start > 4 * BEAT
        assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("dead", [False, True])
def test_without_file_locks_the_process_id_and_start_time_decide(
    tmp_path, holder, monkeypatch, dead
):
    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    if dead:
        holder.kill()
        holder.wait()
        claim(tmp_path).release()
    else:
        assert f"process {holder.pid}" in refusal(tmp_path)


def test_without_file_locks_one_of_two_simultaneous_claims_wins(tmp_path, monkeypatch):
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


def test_a_run_whose_folder_was_taken_over_is_stopped_and_leaves_the_file(tmp_path, elsewhere):
    owner = claim(tmp_path)
    owner.check()
    elsewhere(run="another")
    time.sleep(4 * BEAT)
    with pytest.raises(TakenOver, match="was taken over by process 7 on host far"):
        owner.check()
    owner.release()
    assert json.loads((tmp_path / FILE).read_text())["run"] == "another", (
        "release leaves the other run's file"
    )


def test_a_new_process_of_the_same_elastic_job_claims_the_folder_at_once(tmp_path, elsewhere):
    elsewhere(job="launcher:1234")
    start = time.monotonic()
    claim(tmp_path, job="launcher:1234").release()
    assert time.monotonic() - start < 4 * BEAT


def test_a_folder_on_an_object_store_has_one_owner():
    pytest.importorskip("tensorflow")
    url = f"ram://owner-{os.getpid()}"
    first = claim(url)
    assert "is in use: process" in refusal(url)
    first.release()
    claim(url).release()


@pytest.mark.parametrize("text", ["", "{}", "[]", "\0", '{"run": 3}'])
def test_an_invalid_owner_file_does_not_block_a_claim(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    claim(tmp_path).release()
