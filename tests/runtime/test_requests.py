"""Signals and clocks that ask for a stop or a save."""

import os
import signal
import stat
import time

import pytest

from convoy.runtime.config import Config, ConfigError
from convoy.runtime.requests import Requests, requeue
from convoy.runtime.validate import preempt_signals


def test_a_signal_is_noted_and_handlers_are_put_back():
    before = signal.getsignal(signal.SIGUSR1)
    with Requests(["SIGUSR1"]) as requests:
        assert requests.wishes() == (False, False)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert requests.wishes() == (True, False)
        assert requests.signal == "SIGUSR1"
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL, "a second one ends the process"
    assert signal.getsignal(signal.SIGUSR1) == before


def test_the_clock_asks_for_a_save_and_starts_anew():
    requests = Requests()
    requests.save_every(0.05 / 60)
    assert requests.wishes() == (False, False)
    time.sleep(0.06)
    assert requests.wishes() == (False, True)
    requests.saved()
    assert requests.wishes() == (False, False)


def test_no_clock_no_saves():
    assert Requests([]).wishes() == (False, False)


@pytest.mark.parametrize(
    ("text", "names"),
    [("SIGTERM,SIGUSR1", ["SIGTERM", "SIGUSR1"]), ("none", []), (" SIGUSR2 ", ["SIGUSR2"])],
)
def test_signals_are_read_from_the_flag(text, names):
    assert preempt_signals(Config(preempt_signals=text)) == names


@pytest.mark.parametrize("text", ["SIGKILL", "TERM", "SIGINT", "SIGTERM;SIGUSR1"])
def test_signals_that_cannot_be_used_are_refused(text):
    with pytest.raises(ConfigError, match="--preempt_signals"):
        preempt_signals(Config(preempt_signals=text))


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """A stand-in that notes how it was called and ends with a code."""

    def make(code):
        program = tmp_path / "scontrol"
        program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\necho no >&2\nexit {code}\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        return tmp_path / "called"

    return make


def test_slurm_is_asked_to_queue_the_job_again(scontrol):
    called = scontrol(0)
    job = {"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "b0"}
    assert requeue(job) == "Slurm has queued job 12 again"
    assert called.read_text() == "requeue 12\n"
    requeue(job | {"SLURM_ARRAY_JOB_ID": "11", "SLURM_ARRAY_TASK_ID": "3"})
    assert called.read_text() == "requeue 11_3\n"


def test_outside_slurm_nothing_is_asked(scontrol):
    called = scontrol(0)
    assert requeue({}) == ""
    assert not called.exists()


def test_a_job_that_cannot_be_queued_again_is_told(scontrol):
    scontrol(1)
    job = {"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "b0"}
    assert requeue(job) == "Slurm would not queue job 12 again: no"
