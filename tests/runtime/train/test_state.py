"""Restoring a checkpoint on another rank or number of ranks. Real ranks: tests/integration."""

import numpy as np
import pytest

from convoy.runtime.run_folder import arrays
from convoy.runtime.run_folder.checkpoint import Checkpoint
from convoy.runtime.settings.config import Config
from convoy.runtime.train.best import better_weights
from convoy.runtime.train.new_state import new_state
from convoy.runtime.train.state import figures_of, restore, snapshot
from convoy.runtime.train.step import batch_norm_statistics
from convoy.runtime.train.sums import Sums
from convoy.utils.distributed import ranks
from convoy.utils.optim.variables import to_numpy


class Data:
    """The attributes of a loader that `snapshot` and `restore` use."""

    source = list_digest = None

    def __init__(self):
        self.bad_examples, self.class_names, self.num_examples = {}, None, 97


@pytest.fixture
def pretend(monkeypatch):
    """`pretend(rank, size)` makes this process one rank of several. `all_gather` then returns this
    rank's array and, for the others, the same plus 2 per rank.
    """

    def pretend(rank, size):
        def gather(mine):
            return np.concatenate([mine + 2 * (other - rank) for other in range(size)])

        monkeypatch.setattr(ranks, "rank", lambda: rank)
        monkeypatch.setattr(ranks, "size", lambda: size)
        monkeypatch.setattr(ranks, "all_gather", gather)

    return pretend


def test_each_rank_gets_its_own_statistics_back_and_other_rank_counts_the_mean(pretend):
    config = Config(arch="efficientnet-test", moving_average_decay=0.9)
    state = new_state(config, num_classes=3)
    state.step, state.offset = 5, 40
    counters = np.arange(8.0)
    statistics = batch_norm_statistics(state.model)
    before = [v.numpy() for v in statistics]
    pretend(0, 2)
    saved = snapshot(state, config, Data(), {}, Sums.from_array(counters))
    assert saved.state["processes"] == 2
    for v, own in zip(statistics, before, strict=True):
        for part in (saved.model, saved.ema):
            np.testing.assert_allclose(part[v.path], own + 1, rtol=1e-6)

    # (rank, number of ranks): the expected difference of the statistics from rank 0's, and the
    # expected counters
    cases = {(0, 2): (0, counters), (1, 2): (2, counters + 2), (0, 1): (1, 2 * counters + 2),
             (0, 3): (1, 2 * counters + 2), (2, 3): (1, np.zeros(8))}  # fmt: skip
    for place, (more, counted) in cases.items():
        pretend(*place)
        other = new_state(config, num_classes=3)
        got = restore(other, saved, Data()).as_array()
        np.testing.assert_array_equal(got, counted, err_msg=str(place))
        assert (other.step, other.offset) == (5, 40)
        for v, own in zip(batch_norm_statistics(other.model), before, strict=True):
            np.testing.assert_allclose(v.numpy(), own + more, rtol=1e-6, err_msg=str(place))
            average = other.ema.state()[v.path]
            np.testing.assert_allclose(average, own + more, rtol=1e-6, err_msg=str(place))


def test_a_rank_that_does_not_save_copies_only_its_statistics(pretend, monkeypatch):
    config = Config(arch="efficientnet-test", moving_average_decay=0.9)
    state = new_state(config, num_classes=3)
    state.offset, gathered = 40, []
    pretend(1, 2)
    gather = ranks.all_gather
    monkeypatch.setattr(ranks, "all_gather", lambda mine: gathered.append(mine) or gather(mine))
    whole = snapshot(state, config, Data(), {}, Sums.none())
    others = list(gathered)
    gathered.clear()
    copies = []
    monkeypatch.setattr(arrays, "to_numpy", lambda value: copies.append(1) or to_numpy(value))
    assert snapshot(state, config, Data(), {}, Sums.none(), whole=False) is None
    assert len(copies) == len(batch_norm_statistics(state.model)) < len(whole.model) / 2
    for mine, other in zip(gathered, others, strict=True):
        np.testing.assert_array_equal(mine, other, "the other ranks get the same")


def test_the_moving_average_counts_as_better_unless_an_evaluation_contradicts():
    raw, ema = "eval_accuracy_top_1", "eval_ema_accuracy_top_1"
    assert better_weights({}, has_ema=True) == "ema", "the default without an evaluation"
    assert better_weights({}, has_ema=False) == "raw"
    assert better_weights({raw: 0.5, ema: 0.5}, has_ema=True) == "ema"
    assert better_weights({raw: 0.5, ema: 0.4}, has_ema=True) == "raw"
    assert better_weights({raw: 0.5}, has_ema=True) == "raw"
    assert better_weights({raw: 0.5, ema: 0.6}, has_ema=False) == "raw", (
        "the average no longer exists"
    )


def test_metrics_of_a_dropped_moving_average_are_not_reported():
    saved = Checkpoint({}, state={"metrics": {"eval_loss": 1.0, "eval_ema_loss": 2.0}})
    assert figures_of(saved, has_ema=True) == saved.state["metrics"]
    assert figures_of(saved, has_ema=False) == {"eval_loss": 1.0}
    assert figures_of(None, has_ema=True) == {}
