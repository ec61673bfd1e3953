"""Stop and save requests: signals and the checkpoint timer."""

import os
import signal
import stat
import subprocess
import sys
import time

import pytest

from convoy.runtime.checks.every_mode import preempt_signals
from convoy.runtime.settings.config import Config
from convoy.utils import signals as module
from convoy.utils.errors import ConfigError
from convoy.utils.signals import Requests, Stopped, requeue, stopped_at_once


def test_a_signal_is_recorded_and_the_old_handlers_are_restored():
    before = signal.getsignal(signal.SIGUSR1)
    with Requests(["SIGUSR1"]) as requests:
        assert requests.wishes() == (False, False)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert requests.wishes() == (True, False)
        assert requests.signal == "SIGUSR1"
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL, (
            "a second signal must end the process"
        )
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_signal_within_at_once_raises_stopped():
    with Requests(["SIGUSR1", "SIGUSR2"]) as requests:
        with pytest.raises(Stopped), requests.at_once():
            os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(Stopped), requests.at_once():
            pytest.fail("a signal that came earlier must stop the block too")
        with requests.at_once(False):
            os.kill(os.getpid(), signal.SIGUSR2)
        assert requests.signal == "SIGUSR2", "at_once(False) must only record it"
    assert not issubclass(Stopped, Exception), "`except Exception` must not catch it"
    assert str(stopped_at_once(requests, "before its first step")) == (
        "stopped by SIGUSR2 before its first step"
    )


def test_the_signals_to_handle_can_be_changed_later():
    before = signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGUSR2)
    with Requests() as requests:
        requests.hear(["SIGUSR1"])
        with requests:  # a function further down that uses the same object
            requests.hear(["SIGUSR2"])
            assert signal.getsignal(signal.SIGUSR1) == before[0]
        os.kill(os.getpid(), signal.SIGUSR2)
        assert requests.signal == "SIGUSR2", "an inner block must not restore the handlers"
    assert (signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGUSR2)) == before


HANGS = """
import ctypes, sys
from convoy.utils import signals as requests

requests.PATIENCE = 0.5
with requests.Requests(["SIGTERM"], exits=True) as wishes:
    wishes.at_stake = sys.argv[1] == "at stake"
    print("ready", flush=True)
    # Like a library that handles no signals: sleep continues after each one.
    libc, left = ctypes.CDLL(None), 6
    while left:
        left = libc.sleep(left)
print("slept", flush=True)
"""


@pytest.mark.parametrize(("stake", "code"), [("nothing", 75), ("at stake", 0)])
def test_a_process_blocked_in_c_code_ends_unless_work_is_unsaved(stake, code):
    command = [sys.executable, "-c", HANGS, stake]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    if code:
        assert time.monotonic() - start < 5
        assert b"stopped by SIGTERM; everything is saved" in err
    else:
        assert out == b"slept\n", "the process must wait for an unsaved step"


def test_the_timer_asks_for_a_save_and_restarts_after_it():
    requests = Requests()
    requests.save_every(0.05 / 60)
    assert requests.wishes() == (False, False)
    time.sleep(0.06)
    assert requests.wishes() == (False, True)
    requests.saved()
    assert requests.wishes() == (False, False)


def test_without_a_timer_no_save_is_asked_for():
    assert Requests([]).wishes() == (False, False)


@pytest.mark.parametrize(
    ("text", "names"),
    [("SIGTERM,SIGUSR1", ["SIGTERM", "SIGUSR1"]), ("none", []), (" SIGUSR2 ", ["SIGUSR2"])],
)
def test_preempt_signals_lists_signal_names(text, names):
    assert preempt_signals(Config(preempt_signals=text)) == names


@pytest.mark.parametrize("text", ["SIGKILL", "TERM", "SIGINT", "SIGTERM;SIGUSR1"])
def test_signals_that_cannot_be_handled_are_refused(text):
    with pytest.raises(ConfigError, match="--preempt_signals"):
        preempt_signals(Config(preempt_signals=text))


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """Returns a maker of a fake scontrol that records its arguments and exits with a code."""

    def make(code):
        program = tmp_path / "scontrol"
        program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\necho no >&2\nexit {code}\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        return tmp_path / "called"

    return make


def test_slurm_is_asked_to_requeue_the_job(scontrol):
    called = scontrol(0)
    job = {"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "b0"}
    assert requeue(job) == "Slurm has queued job 12 again"
    assert called.read_text() == "requeue 12\n"
    requeue(job | {"SLURM_ARRAY_JOB_ID": "11", "SLURM_ARRAY_TASK_ID": "3"})
    assert called.read_text() == "requeue 11_3\n"


def test_outside_slurm_scontrol_is_not_called(scontrol):
    called = scontrol(0)
    assert requeue({}) == ""
    assert not called.exists()


def test_a_refused_requeue_is_reported_with_its_reason(scontrol):
    scontrol(1)
    job = {"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "b0"}
    assert requeue(job) == "Slurm would not queue job 12 again: no"


def test_a_slow_slurm_controller_causes_a_message_within_seconds(tmp_path, scontrol, monkeypatch):
    scontrol(0)
    (tmp_path / "scontrol").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(module, "_SCONTROL_SECONDS", 0.2)
    start = time.monotonic()
    text = requeue({"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "b0"})
    assert time.monotonic() - start < 10
    assert text == (
        "job 12 may not be queued again (no answer for 0.2 s): check squeue, or run scontrol"
        " requeue 12"
    )


def test_an_scontrol_that_cannot_run_causes_a_message(tmp_path, scontrol, monkeypatch):
    scontrol(0)
    (tmp_path / "scontrol").write_text("no program")
    monkeypatch.setenv("PATH", str(tmp_path))  # hides an installed Slurm
    assert "may not be queued again (" in requeue({"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "b0"})
