"""What a checkpoint made on some ranks gives to others. Real ranks: tests/integration."""

import numpy as np
import pytest

from convoy.runtime.config import Config
from convoy.runtime.state import new_state, restore, snapshot, what_changes
from convoy.runtime.step import batch_norm_statistics
from convoy.utils import distributed


class Data:
    """As much of a loader as a checkpoint needs."""

    source = None

    def __init__(self):
        self.bad_examples, self.class_names, self.num_examples = {}, None, 97


@pytest.fixture
def ranks(monkeypatch):
    """`ranks(rank, size)`: makes this process one of several; what it gathers are its own arrays,
    each rank's by 2 more than the rank's before it.
    """

    def pretend(rank, size):
        def gather(mine):
            return np.concatenate([mine + 2 * (other - rank) for other in range(size)])

        monkeypatch.setattr(distributed, "rank", lambda: rank)
        monkeypatch.setattr(distributed, "size", lambda: size)
        monkeypatch.setattr(distributed, "all_gather", gather)

    return pretend


def test_each_rank_gets_its_own_and_other_numbers_of_ranks_the_mean(ranks):
    config = Config(arch="efficientnet-test", moving_average_decay=0.9)
    state = new_state(config, num_classes=3)
    state.step, state.offset = 5, 40
    counters = np.arange(8.0)
    statistics = batch_norm_statistics(state.model)
    before = [v.numpy() for v in statistics]
    ranks(0, 2)
    saved = snapshot(state, config, Data(), {}, counters=counters)
    assert saved.state["processes"] == 2
    for v, own in zip(statistics, before, strict=True):
        for part in (saved.model, saved.ema):
            np.testing.assert_allclose(part[v.path], own + 1, rtol=1e-6)

    # (rank, of how many): by how much statistics and counters are more than rank 0's, and whether
    # counters are there at all
    cases = {(0, 2): (0, counters), (1, 2): (2, counters + 2), (0, 1): (1, 2 * counters + 2),
             (0, 3): (1, 2 * counters + 2), (2, 3): (1, np.zeros(8))}  # fmt: skip
    for place, (more, counted) in cases.items():
        ranks(*place)
        other = new_state(config, num_classes=3)
        got = restore(other, saved, Data(), np.zeros(8))
        np.testing.assert_array_equal(got, counted, err_msg=str(place))
        assert (other.step, other.offset) == (5, 40)
        for v, own in zip(batch_norm_statistics(other.model), before, strict=True):
            np.testing.assert_allclose(v.numpy(), own + more, rtol=1e-6, err_msg=str(place))
            average = other.ema.state()[v.path]
            np.testing.assert_allclose(average, own + more, rtol=1e-6, err_msg=str(place))


def test_what_changes_is_said_and_nothing_else(ranks):
    ranks(0, 2)
    same = {"processes": 2, "images_per_step": 64}
    assert what_changes(same, Config(), 64, 10) == []
    assert what_changes({}, Config(), 64, 10) == []
    fewer = {"processes": 4, "images_per_step": 128}
    first, second = what_changes(fewer, Config(), 64, 20)
    assert "2 instead of 4 processes" in first
    assert "64 images a step instead of 128: 20 steps an epoch, the learning rate follows" in second
    assert "the place in the epoch and the order of images stay" in second
    (line,) = what_changes(fewer | {"images_per_step": 64}, Config(lr_base_batch=0), 64, 20)
    assert "2 instead of 4 processes" in line
    _, line = what_changes(fewer, Config(lr_base_batch=0, steps_per_epoch=20), 64, 20)
    assert "the learning rate does not follow (--lr_base_batch 0)" in line
    assert "an epoch has other images (--steps_per_epoch)" in line


def test_a_checkpoint_that_counted_passes_says_so(ranks):
    ranks(0, 2)
    config = Config(train_batch_size=16, grad_accum_steps=2, steps_per_epoch=20)
    old = {"processes": 2, "images_per_step": 64}
    (line,) = what_changes(old, config, 64, 20)
    assert "--steps_per_epoch 20 counts updates: an epoch has 20 steps" in line
    assert "counted passes, of which an update has 2" in line
    assert what_changes(old | {"steps_per_epoch": 20}, config, 64, 20) == []
    assert what_changes(old, config.with_(steps_per_epoch=None), 64, 20) == []
