"""The order of an epoch: every example once, on any ranks, from any start."""

import itertools

import numpy as np
import pytest

from convoy.dataloader.order.sampler import EpochOrder, Slots, example_seeds

PINNED_ORDER = [5, 3, 7, 8, 2, 4, 1, 0, 6, 9]
PINNED_SEEDS = [[1949917470, 1581361928], [318745575, 1690263989]]


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 1000, 5003])
@pytest.mark.parametrize(("block", "window"), [(1, 1), (1, 7), (8, 3), (64, 256)])
def test_the_order_is_a_permutation(n, block, window):
    order = EpochOrder(n, 3, 5, block, window)
    everything = order[np.arange(n)]
    assert sorted(everything) == list(range(n))
    # Positions can be asked for lazily and in any grouping.
    fresh = EpochOrder(n, 3, 5, block, window)
    backwards = [int(fresh[i]) for i in range(n - 1, -1, -1)]
    assert backwards[::-1] == everything.tolist()


def test_the_order_depends_only_on_seed_and_epoch():
    at = np.arange(300)
    one = EpochOrder(300, 1, 0)[at]
    assert (one == EpochOrder(300, 1, 0)[at]).all()
    assert (one != EpochOrder(300, 2, 0)[at]).any()
    assert (one != EpochOrder(300, 1, 1)[at]).any()
    with pytest.raises(IndexError):
        EpochOrder(300, 1, 0)[300]


def test_the_order_stays_the_same_across_versions():
    """A resumed run must continue in the order of the interrupted one."""
    assert EpochOrder(10, seed=0, epoch=0)[np.arange(10)].tolist() == PINNED_ORDER
    assert example_seeds(0, np.array([0, 1]), np.array([0, 7])).tolist() == PINNED_SEEDS


def test_reading_stays_local_while_mixing_covers_the_whole_set():
    n, block, window = 64_000, 64, 50
    order = EpochOrder(n, 0, 0, block, window)[np.arange(n)]
    first = order[: block * window]
    assert len(np.unique(first // block)) == window  # whole blocks only
    assert first.max() - first.min() > 0.8 * n  # from all parts of the set
    assert abs(np.corrcoef(first, np.arange(len(first)))[0, 1]) < 0.1


def test_small_sets_are_permuted_example_by_example():
    """Single examples mix over the whole set: neighbours end far apart."""
    order = np.argsort(EpochOrder(16_000, 0, 0)[np.arange(16_000)])
    assert np.median(np.abs(np.diff(order))) > 3000


SHAPES = [
    (n, world, batch)
    for n, world, batch in itertools.product([1, 7, 64, 250, 20_001], [1, 2, 3, 8], [1, 4, 32])
    if n / (world * batch) < 700  # thousands of batches of one example add nothing
]


@pytest.mark.parametrize(("n", "world", "batch"), SHAPES)
def test_every_example_comes_once_per_epoch(n, world, batch):
    ranks = [Slots(n, world * batch, seed=1, rank=r, world=world) for r in range(world)]
    counts = np.zeros(n)
    for step in range(ranks[0].steps_per_epoch):
        for slots in ranks:
            indices, epochs, weights = slots.batch(2, step)
            assert indices.shape == epochs.shape == weights.shape == (batch,)
            assert indices.dtype == epochs.dtype == np.int64
            assert weights.dtype == np.float32
            assert (epochs == 2).all()
            np.add.at(counts, indices, weights)
    assert (counts == 1).all()


@pytest.mark.parametrize("steps", [None, 5, 40])
@pytest.mark.parametrize("world", [2, 4])
def test_several_ranks_have_the_global_order_of_one(world, steps):
    alone = Slots(100, 16, steps, seed=4)
    ranks = [Slots(100, 16, steps, seed=4, rank=r, world=world) for r in range(world)]
    for epoch, step in itertools.product(range(3), range(alone.steps_per_epoch)):
        parts = [slots.batch(epoch, step) for slots in ranks]
        for whole, pieces in zip(alone.batch(epoch, step), zip(*parts, strict=True), strict=True):
            assert (np.stack(pieces, 1).ravel() == whole).all()


@pytest.mark.parametrize("offset", [0, 1, 17, 48, 99])
def test_an_epoch_can_start_at_any_offset(offset):
    n = 100
    whole = np.concatenate([Slots(n, 10, seed=2).batch(3, s)[0] for s in range(10)])
    for world, batch in [(1, 16), (2, 12), (3, 9)]:
        ranks = [Slots(n, batch * world, seed=2, rank=r, world=world) for r in range(world)]
        met = []
        for step in range(ranks[0].steps_from(offset)):
            parts = [slots.batch_at(3, offset + step * batch * world) for slots in ranks]
            indices = np.stack([p[0] for p in parts], 1).ravel()
            weights = np.stack([p[2] for p in parts], 1).ravel()
            met += indices[weights > 0].tolist()
        assert met == whole[offset:].tolist()


def test_explicit_steps_continue_the_order_across_epochs():
    slots = Slots(10, 4, steps_per_epoch=3, seed=6)
    # 60 slots: six passes over the data.
    batches = [slots.batch(e, s) for e in range(5) for s in range(3)]
    indices = np.concatenate([b[0] for b in batches]).reshape(6, 10)
    assert (np.sort(indices, 1) == np.arange(10)).all()
    assert np.concatenate([b[1] for b in batches]).tolist() == np.repeat(range(6), 10).tolist()
    assert all((b[2] == 1).all() for b in batches)
    # A last step that reaches into the next epoch must not count its examples twice.
    assert slots.batch_at(0, 10)[2].tolist() == [1, 1, 0, 0]
    assert slots.steps_from(10) == 1
    assert slots.steps_from(12) == 0


def test_evaluation_has_file_order_and_padding_of_weight_0():
    parts = [Slots(10, 8, shuffle=False, rank=r, world=2) for r in range(2)]
    assert parts[0].steps_per_epoch == parts[1].steps_per_epoch == 2
    assert parts[1].batch(0, 0)[0].tolist() == [1, 3, 5, 7]
    assert parts[0].batch(0, 1)[0].tolist() == [8, 0, 2, 4]
    assert parts[0].batch(0, 1)[2].tolist() == [1, 0, 0, 0]


def test_example_seeds_are_distinct_and_do_not_depend_on_the_batch():
    epochs, indices = np.repeat(np.arange(5), 2000), np.tile(np.arange(2000), 5)
    seeds = example_seeds(0, epochs, indices)
    assert seeds.shape == (10_000, 2)
    assert seeds.dtype == np.int32
    assert len(np.unique(seeds, axis=0)) == 10_000
    assert (example_seeds(0, epochs[7:8], indices[7:8]) == seeds[7]).all()
    assert (example_seeds(0, epochs, indices, stream=1) != seeds).any(1).all()
    assert (example_seeds(1, epochs, indices) != seeds).any(1).all()
    bits = np.unpackbits(seeds.view(np.uint8), axis=1).mean(0)
    assert np.abs(bits - 0.5).max() < 0.03


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_examples": 0, "global_batch": 1},
        {"num_examples": 5, "global_batch": 3, "world": 2},
        {"num_examples": 5, "global_batch": 2, "world": 2, "rank": 2},
        {"num_examples": 5, "global_batch": 2, "steps_per_epoch": 0},
    ],
)
def test_invalid_slots_are_refused(wrong):
    with pytest.raises(ValueError, match=r"\d"):
        Slots(**wrong)


def test_a_batch_outside_the_epoch_is_refused():
    with pytest.raises(ValueError, match="offset 10"):
        Slots(10, 5).batch(0, 2)
    with pytest.raises(ValueError, match="epoch -1"):
        Slots(10, 5).batch(-1, 0)
