"""A killed or preempted run that is resumed ends with the bits of an uninterrupted one."""

import random
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from convoy.runtime.run_folder import checkpoint

# everything that is random or averaged
EVERYTHING = ("--augmenter_name", "autoaugment", "--dropout", "0.3", "--stochastic_depth", "0.3")
FLAGS = ("--max_epochs", "5", "--warmup_epochs", "20%", "--moving_average_decay", "0.9")
FLAGS += ("--layer_decay", "0.8")
ENDLESS = ("--max_epochs", "500")  # longer than any wait for a signal
OFTEN = ("--checkpoint_every_minutes", "0.002")  # after nearly every step
PREEMPTED = 75
STEPS = 7  # steps per epoch: 97 images in batches of 16


@pytest.fixture
def launch(small_run, tiny, tmp_path):
    """A function that returns the flags of a run, with 16 images a step on any number of ranks."""

    def arguments(name, ranks=1, more=EVERYTHING):
        batch = ("--train_batch_size", str(16 // ranks))
        return (
            *small_run,
            *FLAGS,
            *more,
            *batch,
            "--data_dir",
            tiny,
            "--model_dir",
            tmp_path / name,
        )

    return arguments


def final(model_dir):
    """Returns all arrays of the newest checkpoint, and its position."""
    saved = checkpoint.read(checkpoint.latest(model_dir))
    arrays = {
        f"{part}/{name}": array
        for part in ("model", "ema", "optimizer")
        for name, array in getattr(saved, part).items()
    }
    return arrays, {key: saved.state[key] for key in ("step", "epoch", "offset", "best")}


def assert_same_end(model_dir, other):
    (arrays, position), (others, other_position) = final(model_dir), final(other)
    assert position == other_position
    assert position["epoch"] == 5
    assert set(arrays) == set(others)
    for name, array in arrays.items():
        assert array.dtype == others[name].dtype
        np.testing.assert_array_equal(array, others[name], err_msg=name)


def a_random_step(epoch):
    """Returns a random step of this epoch, as the progress line and the log write it."""
    step = random.randint(1, STEPS)
    return f"epoch {epoch}/5  step {step}/{STEPS}", f"epoch {epoch}/5 step {step}/{STEPS}"


def signal_at(running, texts, victim, number=signal.SIGKILL):
    """Waits until one of the texts is printed, then sends a signal to the victim."""
    print("signalling at", texts[0])

    pattern = re.compile("|".join(re.escape(text) for text in texts))
    deadline = time.monotonic() + 200
    while not pattern.search(running.text):
        assert running.process.poll() is None, running.text
        assert time.monotonic() < deadline, running.text
        time.sleep(0.005)
    victim().send_signal(number)


def losses(log):
    """Returns the loss of every step and epoch; a position that was logged twice must agree."""
    found = {}
    for line in log:
        loss = line.get("data", {}).get("train.loss")
        if loss is not None:
            assert found.setdefault(str(line["step"]), loss) == loss
    return found


@pytest.mark.slow
def test_a_killed_and_a_preempted_run_resume_to_the_same_bits(convoy, launch, tmp_path, log_lines):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    convoy(*launch("whole"))
    running = convoy.start(*launch("broken"), *OFTEN)
    signal_at(running, a_random_step(epoch=3), lambda: running.process)
    assert running.finish().code == -signal.SIGKILL
    saved = checkpoint.read(checkpoint.latest(broken)).state
    assert saved["epoch"] in (1, 2, 3), "the run must be killed in the middle"

    running = convoy.start(*launch("broken"), "--resume_checkpoint")
    signal_at(running, a_random_step(epoch=4), lambda: running.process, signal.SIGTERM)
    stopped = running.finish()
    assert f"epoch {saved['epoch'] + 1}, step {saved['step']}" in stopped.out
    assert stopped.code == PREEMPTED, stopped.text
    # On a slow machine, a signal near the epoch's end arrives in its evaluation.
    assert re.search("stopped by SIGTERM (after step|while epoch 4 was evaluated)", stopped.err)
    assert "--resume_checkpoint" in stopped.err
    assert checkpoint.read(checkpoint.latest(broken)).state["epoch"] in (3, 4)

    convoy(*launch("broken"), "--resume_checkpoint")
    assert_same_end(broken, whole)
    once, pieced = (losses(log_lines(folder / "log.json")) for folder in (whole, broken))
    assert once == pieced


def notes(process, number):
    """Returns whether the process has its own handler for the signal."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"^SigCgt:\s*(\w+)", status, re.M)[1], 16) >> (number - 1) & 1


def test_a_signal_before_the_first_step_stops_the_run(convoy, launch):
    running = convoy.start(*launch("early"), "--resume_checkpoint")
    deadline = time.monotonic() + 100
    while not notes(running.process, signal.SIGUSR1):
        assert running.process.poll() is None, running.text
        assert time.monotonic() < deadline, running.text
        time.sleep(0.005)
    running.process.send_signal(signal.SIGUSR1)
    stopped = running.finish()
    assert stopped.code == PREEMPTED, stopped.text
    assert "stopped by SIGUSR1 before its first step" in stopped.err


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("ranks", "killed"), [(2, False), (2, True), (3, True)])
def test_preempted_or_killed_ranks_resume_to_the_same_bits(convoy, launch, tmp_path, ranks, killed):
    """With three ranks means are rounded; with two they are exact."""
    convoy(*launch("whole", ranks=ranks), np=ranks)
    everyone = []

    def one_of_them():
        everyone[:] = running.ranks()
        assert len(everyone) == ranks
        return random.choice(everyone)

    resume = ()
    if killed:
        running = convoy.start(*launch("broken", ranks=ranks), *OFTEN, np=ranks)
        signal_at(running, a_random_step(epoch=3), one_of_them)
        assert running.finish(timeout=120).code != 0
        assert not any(process.is_running() for process in everyone), "no rank may still run"
        resume = ("--resume_checkpoint",)

    running = convoy.start(*launch("broken", ranks=ranks), *resume, np=ranks)
    signal_at(running, a_random_step(epoch=4), one_of_them, signal.SIGUSR1)
    stopped = running.finish(timeout=120)
    # After a step, or during the evaluation if that was the epoch's last.
    assert "stopped by SIGUSR1" in stopped.text, "a signal to one rank must stop all"
    saved = checkpoint.read(checkpoint.latest(tmp_path / "broken"))
    assert saved.state["epoch"] in (3, 4)

    convoy(*launch("broken", ranks=ranks), "--resume_checkpoint", np=ranks)
    assert_same_end(tmp_path / "broken", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_balanced_classes_and_class_weights_resume_to_the_same_bits(
    convoy, launch, tmp_path, ranks
):
    weights = tmp_path / "weights.yaml"
    weights.write_text("1: 2.0\n3: 0.5\n")
    flags = ("--sampling", "balanced", "--class_weights", weights, "--mixup_alpha", "0.2")
    arguments = {"ranks": ranks, "more": (*EVERYTHING, *flags)}
    convoy(*launch("whole", **arguments), np=ranks)
    running = convoy.start(*launch("broken", **arguments), np=ranks)
    stop = (lambda: running.process) if ranks == 1 else (lambda: random.choice(running.ranks()))
    signal_at(running, a_random_step(epoch=3), stop, signal.SIGUSR1)
    stopped = running.finish(timeout=120)
    assert "stopped by SIGUSR1" in stopped.text  # in a step, or in the evaluation after it
    convoy(*launch("broken", **arguments), "--resume_checkpoint", np=ranks)
    assert_same_end(tmp_path / "broken", tmp_path / "whole")


def test_ctrl_c_keeps_the_checkpoints_and_says_how_to_resume(convoy, launch, tmp_path):
    running = convoy.start(*launch("run", more=ENDLESS))
    running.wait_for("epoch 2/500")
    running.process.send_signal(signal.SIGINT)
    done = running.finish(60)
    assert done.code == 130, done.text
    assert "interrupted" in done.err
    assert "--resume_checkpoint" in done.err
    assert "Traceback" not in done.text
    assert checkpoint.latest(tmp_path / "run") is not None


@pytest.mark.slow
def test_ctrl_c_under_horovodrun_ends_every_rank(convoy, launch, tmp_path):
    running = convoy.start(*launch("run", ranks=2, more=ENDLESS), np=2)
    running.wait_for("epoch 2/500", timeout=200)
    ranks = running.ranks()
    assert len(ranks) == 2
    running.process.send_signal(signal.SIGINT)
    done = running.finish(60)
    assert done.code != 0
    assert not any(process.is_running() for process in ranks)
    assert checkpoint.latest(tmp_path / "run") is not None


@pytest.mark.slow
def test_ctrl_c_to_all_processes_prints_how_to_resume_once(convoy, launch):
    running = convoy.start(*launch("run", more=(*ENDLESS, "--nproc", "2")))
    running.wait_for("epoch 2/500", timeout=200)
    for process in running.ranks():  # a terminal sends it to all processes
        process.send_signal(signal.SIGINT)
    running.process.send_signal(signal.SIGINT)
    done = running.finish(60)
    assert done.code == 130, done.text
    assert done.err.count("--resume_checkpoint") == 2, (
        "expected once in the sentence and once in the command"
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_progressive_run_resumes_to_the_same_bits(convoy, launch, tmp_path):
    """Stages last 1 and 2 epochs, so the run may be killed on either side of a boundary."""
    stages = (
        *("--n_stages", "3", "--base_img_size", "16", "--image_size", "32", "--dropout", "0.4"),
        *("--base_dropout", "0", "--mixup_alpha", "0.2", "--cutmix_alpha", "1"),
        *("--base_cutmix", "0.5", "--mix_prob", "0.8", "--mix_off_epoch", "4"),
        *("--augmenter_name", "randaugment", "--magnitude", "9", "--magnitude_std", "0.5"),
        *("--color_jitter=[0.3]", "--random_erasing", "0.3", "--stochastic_depth", "0.3"),
    )
    whole = convoy(*launch("whole", more=stages))
    assert "stage 1/3, from epoch 1: 16 px, magnitude 5, mixup 0, cutmix 0.5" in whole.out
    assert "stage 2/3, from epoch 3: 24 px, magnitude 7, mixup 0.1, cutmix 0.75" in whole.out
    assert "stage 3/3, from epoch 5: 32 px, magnitude 9, mixup 0, cutmix 0" in whole.out
    running = convoy.start(*launch("killed", more=stages))
    signal_at(running, a_random_step(epoch=3), lambda: running.process)
    assert running.finish().code == -signal.SIGKILL
    convoy(*launch("killed", more=stages), "--resume_checkpoint")
    assert_same_end(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_killed_five_times_ends_with_the_same_bits(convoy, launch, tmp_path):
    """It is killed after random times: in a step, a save or a start."""

    convoy(*launch("whole"))
    for _ in range(5):
        running = convoy.start(*launch("killed"), "--resume_checkpoint")
        time.sleep(random.uniform(4, 14))
        running.process.kill()
        running.finish()
    convoy(*launch("killed"), "--resume_checkpoint")
    assert_same_end(tmp_path / "killed", tmp_path / "whole")
