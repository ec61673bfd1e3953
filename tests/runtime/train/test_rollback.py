"""`--nan_rollback`: real runs over images that hold NaN go back to a checkpoint."""

import numpy as np
import pytest
import tensorflow as tf

from convoy.dataloader.loader import Loader
from convoy.runtime.run_folder import checkpoint
from convoy.runtime.run_folder.checkpoint import Checkpoint
from convoy.runtime.train.loss_scale import LossScale
from convoy.runtime.train.rollback import is_left_out, last_good
from convoy.runtime.train.step import TrainState

OFTEN = ("--checkpoint_every_minutes", "0.0001")  # after every step
FLAGS = ("--max_epochs", "3", "--warmup_epochs", "1", "--mode", "train", "--dropout", "0.3")
EMA = ("--moving_average_decay", "0.9")


@pytest.fixture
def train(small_run, tiny, tmp_path, run_main):
    """Runs with model_dir `name`; returns the exit code and the output joined to one line."""

    def run(name, *more):
        args = (*small_run, *FLAGS, *EMA, "--data_dir", tiny, "--model_dir", tmp_path / name)
        return run_main(*args, *more)

    return run


@pytest.fixture
def poison(monkeypatch):
    """Puts NaN into the images of steps, each given by (epoch, offset)."""
    batches = Loader.batches

    def spread(*places):
        def poisoned(self, epoch, offset=0):
            for images, labels, weights in batches(self, epoch, offset):
                images = tf.cast(images, tf.float32)
                if (epoch, offset) in places:
                    images = tf.concat([images[:1] * np.nan, images[1:]], axis=0)
                yield images, labels, weights
                offset += self.global_batch

        monkeypatch.setattr(Loader, "batches", poisoned)

    return spread


def arrays(folder):
    saved = checkpoint.read(checkpoint.latest(folder))
    parts = {p: getattr(saved, p) for p in ("model", "ema", "optimizer")}
    return {f"{p}/{name}": array for p, part in parts.items() for name, array in part.items()}


def assert_same(folder, other):
    one, two = arrays(folder), arrays(other)
    assert set(one) == set(two)
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name], err_msg=name)


def test_a_run_with_nan_goes_back_and_skips_the_images(train, poison, tmp_path):
    """It does so twice from one checkpoint."""
    poison((1, 32), (1, 48))
    code, text = train("whole", "--nan_rollback", "2")
    assert code == 0, text
    assert "the training loss was not finite at step 10 (epoch 2)" in text
    assert "leaving out the 16 images of step 10 from now on (rollback 1 of 2)" in text
    assert text.count("going back to step 7") == 2, "to the end of the first epoch"
    assert "leaving out the 16 images of step 11 from now on (rollback 2 of 2)" in text
    saved = checkpoint.read(checkpoint.latest(tmp_path / "whole"))
    assert (saved.state["step"], saved.state["epoch"]) == (21, 3)
    assert saved.state["left_out"] == [[1, 32, 48], [1, 48, 64]]
    assert all(np.isfinite(array).all() for array in arrays(tmp_path / "whole").values())


@pytest.mark.slow
def test_a_run_with_nan_that_is_interrupted_ends_with_the_same_bits(train, poison, tmp_path):
    poison((1, 32), (1, 48))
    assert train("whole", "--nan_rollback", "2")[0] == 0
    code, text = train("pieces", "--nan_rollback", "2", *OFTEN, "--prof", "11")
    assert code == 0, text
    assert "going back to step 9" in text, "to the save of the step before"
    assert text.count("WARNING: the training loss") == 2
    code, text = train("pieces", "--nan_rollback", "2", "--resume_checkpoint")
    assert code == 0, text
    assert "going back" not in text, "the checkpoint lists the images to skip"
    assert_same(tmp_path / "pieces", tmp_path / "whole")


def test_without_a_checkpoint_a_nan_loss_ends_the_run(train, poison):
    poison((0, 32))
    code, text = train("run", "--nan_rollback", "1")
    assert code == 1
    assert "the training loss was not finite at step 3 (epoch 1)" in text
    assert "no checkpoint was saved yet" in text


@pytest.mark.slow
def test_a_nan_loss_that_persists_ends_the_run_after_nan_rollback_tries(train, poison, tmp_path):
    poison(*[(1, offset) for offset in range(0, 97, 16)])
    code, text = train("run", "--nan_rollback", "2")
    assert code == 1
    assert text.count("WARNING: the training loss was not finite") == 2
    assert "not finite at step 10 (epoch 2)" in text
    assert "it went back 2 times already" in text
    assert checkpoint.read(checkpoint.latest(tmp_path / "run")).state["step"] == 7


def test_checkpoints_with_nan_or_infinity_are_discarded_in_a_rollback(tmp_path):
    for step, worst in ((1, 1.0), (2, 2.0), (3, np.inf), (4, np.nan)):
        weights = {"w": np.array([0.0, worst], np.float32)}
        checkpoint.save(tmp_path, Checkpoint(model=weights, state={"step": step}, config="x: 1\n"))
    assert last_good(tmp_path).state["step"] == 2
    names = [path.name for path in checkpoint.complete_checkpoints(tmp_path)]
    assert names == ["step-00000001", "step-00000002"]


def test_skipped_images_are_recognised_whatever_the_batch_size():
    state = TrainState(None, None, LossScale("dynamic", False), epoch=1)
    state.left_out = [(1, 32, 48)]

    def steps(images):
        found = []
        for state.offset in range(0, 96, images):
            if is_left_out(state, images):
                found.append(state.offset)
        return found

    assert steps(16) == [32]
    assert steps(8) == [32, 40]
    assert steps(24) == [24]
    state.epoch = 2
    assert steps(16) == []


def test_nan_rollback_without_checkpoints_is_refused(train):
    with pytest.raises(SystemExit) as exit_:
        train("run", "--nan_rollback", "1", "--no_checkpoints")
    assert exit_.value.code == 2


POISONED = """
import sys
import numpy as np
import tensorflow as tf
from convoy.dataloader.loader import Loader
from convoy.utils.distributed import ranks
from main import main

batches = Loader.batches

def poisoned(self, epoch, offset=0):
    for images, labels, weights in batches(self, epoch, offset):
        images = tf.cast(images, tf.float32)
        if (epoch, offset) == (1, 32) and ranks.rank() == 1:
            images = images * np.nan
        yield images, labels, weights
        offset += self.global_batch

Loader.batches = poisoned
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_all_ranks_go_back_together_when_one_has_nan(convoy, script, small_run, tiny, tmp_path):
    """The program itself compares the ranks' weights bit by bit at the end of the run."""
    args = (*small_run, *FLAGS, *EMA, "--data_dir", tiny, "--model_dir", tmp_path / "run")
    batch = ("--train_batch_size", "8", "--nan_rollback", "1")
    done = convoy(*args, *batch, np=2, script=script(POISONED))
    assert done.text.count("going back to step 7") == 1
    saved = checkpoint.read(checkpoint.latest(tmp_path / "run"))
    assert (saved.state["step"], saved.state["left_out"]) == (21, [[1, 32, 48]])
