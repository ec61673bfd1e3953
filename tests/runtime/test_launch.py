"""`--nproc`: starting and stopping several processes, their output and their exit code."""

import importlib
import io
import os
import re
import signal

import pytest

from convoy.runtime.run_folder import checkpoint

launch = importlib.import_module("convoy.runtime.launch")


@pytest.fixture
def started(convoy, small_run, tiny, tmp_path):
    """Starts a long run in two processes and waits for its second epoch."""

    def start():
        flags = (*small_run, "--train_batch_size", "8", "--max_epochs", "500", "--nproc", "2")
        flags += ("--mode", "train")  # a signal during an evaluation has another message
        running = convoy.start(*flags, "--data_dir", tiny, "--model_dir", tmp_path / "run")
        running.wait_for("epoch 2/500", timeout=200)
        return running

    return start


def ranks(running):
    """Returns the two training processes in the order of their ranks."""
    found = {child.environ().get("HOROVOD_RANK"): child for child in running.children()}
    return [found["0"], found["1"]]


@pytest.mark.slow
def test_sigterm_makes_all_ranks_save_and_ends_with_75(started, tmp_path):
    running = started()
    both = ranks(running)
    running.process.send_signal(signal.SIGTERM)
    done = running.finish()
    assert done.code == 75, done.text
    step = int(re.search(r"stopped by SIGTERM after step (\d+)", done.err)[1])
    assert checkpoint.read(checkpoint.latest(tmp_path / "run")).state["step"] == step
    assert not any(process.is_running() for process in both)
    assert all(re.match(r"\[[01]\] ", line) for line in done.text.splitlines() if line)


@pytest.mark.slow
def test_a_killed_rank_ends_the_others_and_gives_the_exit_code_137(started):
    running = started()
    both = ranks(running)
    both[1].kill()
    done = running.finish(60)
    assert done.code == 128 + signal.SIGKILL
    assert "rank 1 ended with exit code 137" in done.err
    assert not any(process.is_running() for process in both)


@pytest.mark.slow
def test_a_rank_that_hangs_after_another_failed_is_killed(started):
    running = started()
    both = ranks(running)
    both[0].send_signal(signal.SIGSTOP)
    both[1].kill()
    done = running.finish(90)
    assert done.code == 128 + signal.SIGKILL
    assert "ending rank 0, stopped (by SIGSTOP, say) while a rank failed" in done.err
    assert not any(process.is_running() for process in both)


@pytest.mark.slow
def test_ctrl_c_ends_all_ranks_with_130(started):
    running = started()
    both = ranks(running)
    running.process.send_signal(signal.SIGINT)
    assert running.finish(60).code == 130
    assert not any(process.is_running() for process in both)


@pytest.mark.slow
def test_ranks_whose_launcher_is_killed_save_and_end(started, tmp_path):
    running = started()
    both = ranks(running)
    running.process.kill()
    for process in both:
        process.wait(60)
    assert checkpoint.latest(tmp_path / "run") is not None


def test_an_ignored_sighup_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with launch._passing_on([], 0):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


RANK = """
import signal, sys, time
from convoy.runtime.launch import settle_in

time.sleep(0.5)  # a signal comes meanwhile
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
settle_in()
time.sleep(5)
"""


def test_a_signal_during_the_start_reaches_each_rank_once_it_has_a_handler(script, monkeypatch):
    """Sent at once, it would kill ranks without a handler, and miss ranks not yet started."""
    monkeypatch.setattr(launch, "PROGRAM", [str(script(RANK))])
    start = launch.subprocess.Popen

    def started(*args, **options):
        if options["env"]["HOROVOD_RANK"] == "1":
            os.kill(os.getpid(), signal.SIGTERM)
        return start(*args, **options)

    monkeypatch.setattr(launch.subprocess, "Popen", started)
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    assert launch.launch(2, []) == 75


def test_a_ranks_output_is_drained_even_if_the_readers_pipe_is_closed():
    reader, writer = os.pipe()
    os.close(reader)
    source = io.BytesIO(b"line\n" * 1000)
    with os.fdopen(writer, "wb") as target:  # closing it flushes the rest
        launch._prefix(0, source, target)
    assert source.read() == b""


def test_nproc_is_refused_in_single_process_modes_and_within_another_launch(convoy, photos):
    done = convoy("--mode", "predict", "--nproc", "2", "--predict_dir", photos, code=2)
    assert "--mode predict runs in one process" in " ".join(done.err.split())
    env = {"HOROVOD_SIZE": "4"}
    done = convoy("--nproc", "2", "--data_dir", photos, env=env, code=2)
    assert "--nproc 2 within a launch of 4 processes" in " ".join(done.err.split())
