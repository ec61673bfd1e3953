"""The watchdog's verdicts about ranks, from simulated signs of life."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convoy.utils.watchdog.heartbeats import identity
from convoy.utils.watchdog.roster import FAILED, GONE, SILENT, STUCK, Peer, Roster, Sign


@pytest.fixture
def roster():
    """Three ranks, last heard at time 0."""
    made = Roster(20.0)
    for rank in range(3):
        made.peers[rank] = Peer({"rank": rank, "host": f"node{rank}"}, 0.0, 0.0, Sign())
    return made


def hear_all(roster, now, *signs):
    for rank, sign in enumerate(signs):
        if sign is not None:
            roster.hear(rank, sign, now)


def test_ranks_that_send_signs_of_life_are_not_blamed(roster):
    for now in range(100):
        hear_all(roster, now, *[Sign(now, "computing", 20.0)] * 3)
        assert roster.judge(now) is None


def test_a_rank_that_stays_behind_while_others_wait_is_blamed(roster):
    waits, late = Sign(8, "exchanging step 4", 20.0), Sign(7, "waiting for data of step 4", 20.0)
    for now in range(21):
        hear_all(roster, now, waits, late, waits)
        assert roster.judge(now) is None
    hear_all(roster, 21, waits, late, waits)
    verdict = roster.judge(21)
    assert verdict.kind == STUCK
    assert [who["rank"] for who in verdict.culprits] == [1]
    assert verdict.text.startswith("rank 1 on host node1: has not come as far as the others")
    assert "exchanging step 4" in verdict.text
    assert verdict.text.endswith("last seen waiting for data of step 4")


def test_a_late_rank_has_its_full_time_from_the_moment_another_waits(roster):
    """All ranks compute for long; a slow rank's time runs from the end of the first one."""
    computing, done = Sign(7, "computing", 20.0), Sign(8, "exchanging", 20.0)
    hear_all(roster, 0, computing, computing, computing)
    hear_all(roster, 100, done, computing, computing)
    hear_all(roster, 119, done, computing, done)
    assert roster.judge(119) is None
    hear_all(roster, 121, done, computing, done)
    assert [who["rank"] for who in roster.judge(121).culprits] == [1]


def test_a_patient_phase_has_no_limit_and_the_limit_restarts_after_it(roster):
    waits = Sign(8, "exchanging", 20.0)
    for now in range(0, 1000, 10):
        hear_all(roster, now, Sign(7, "saving", None), waits, waits)
        assert roster.judge(now) is None
    for now in range(1000, 1021, 10):
        hear_all(roster, now, Sign(7, "waiting for data", 20.0), waits, waits)
        assert roster.judge(now) is None
    hear_all(roster, 1022, Sign(7, "waiting for data", 20.0), waits, waits)
    assert roster.judge(1022).kind == STUCK


def test_a_silent_rank_is_blamed_even_in_a_patient_phase(roster):
    hear_all(roster, 5, None, Sign(3, "saving", None))
    for now in range(5, 26):
        hear_all(roster, now, Sign(3, "x", None), None, Sign(3, "x", None))
        assert roster.judge(now) is None
    hear_all(roster, 26, Sign(3, "x", None), None, Sign(3, "x", None))
    verdict = roster.judge(26)
    assert verdict.kind == SILENT
    assert verdict.text.startswith("rank 1 on host node1: no sign of life for 21 s")
    assert verdict.text.endswith("last seen saving")


def test_a_rank_that_loads_libraries_may_be_silent_unless_it_is_stopped(roster):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        born = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
        roster.peers[1].who |= identity() | {"pid": child.pid, "born": born}
        loads, waits = Sign(0, "loading TensorFlow", None, 6.0), Sign(1, "waiting", None)
        hear_all(roster, 5, waits, loads, waits)
        for now in (20, 60, 124):
            hear_all(roster, now, waits, None, waits)
            assert roster.judge(now) is None
        child.send_signal(signal.SIGSTOP)
        while roster.judge(124) is None:
            time.sleep(0.01)
        assert roster.judge(24) is None, "a stopped rank still has the usual time"
        child.send_signal(signal.SIGCONT)
        hear_all(roster, 126, waits, None, waits)
        assert roster.judge(126).kind == SILENT, "the time for loading must end too"
    finally:
        child.kill()
        child.wait()


def test_the_verdict_names_the_cause_before_its_consequences(roster):
    """Ranks are silent or late because another one died."""
    hear_all(roster, 50, None, None, Sign(1, "x", 20.0))
    assert {who["rank"] for who in roster.judge(50).culprits} == {0, 1}
    roster.peers[2].gone = True
    assert roster.judge(50).kind == GONE
    roster.peers[1].failed = "stopped by an error: no such file"
    verdict = roster.judge(50)
    assert (verdict.kind, verdict.text) == (
        FAILED,
        "rank 1 on host node1: stopped by an error: no such file",
    )


def test_many_silent_ranks_are_counted_and_few_are_listed():
    roster = Roster(20.0)
    for rank in range(40):
        roster.peers[rank] = Peer({"rank": rank, "host": "a"}, 0.0, 0.0, Sign())
    verdict = roster.judge(21.0)
    assert len(verdict.culprits) == 40
    assert verdict.text.endswith("and 36 more")


def test_after_the_watchdogs_process_slept_no_rank_is_blamed(roster):
    hear_all(roster, 10, *[Sign(1, "x", 20.0)] * 3)
    roster.begin_anew(now=311)
    assert roster.judge(311) is None
    assert roster.judge(332).kind == SILENT


def test_when_all_ranks_stop_for_long_all_are_blamed(roster):
    for now in range(0, 200, 10):
        hear_all(roster, now, *[Sign(5, "exchanging", 20.0)] * 3)
        assert roster.judge(now) is None
    hear_all(roster, 201, *[Sign(5, "exchanging", 20.0)] * 3)
    verdict = roster.judge(201)
    assert (verdict.kind, len(verdict.culprits)) == (STUCK, 3)
    hear_all(roster, 202, Sign(5, "saving", None))
    assert roster.judge(202) is None, "a patient rank may take any time"
