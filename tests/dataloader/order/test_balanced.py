"""Sampling of classes with other frequencies than their own: counts, order, any ranks."""

import numpy as np
import pytest

from convoy.dataloader.order.balanced import SAMPLING, ClassSampler
from convoy.dataloader.order.sampler import Slots, example_seeds
from convoy.dataloader.sources.class_count import UNREAD
from convoy.dataloader.sources.find import find_source
from convoy.dataloader.sources.renumbered import Renumbered
from convoy.dataloader.sources.source import Source

LABELS = np.repeat([0, 1, 3], [900, 90, 10])  # class 2 does not occur
PINNED = [2, 3, 4, 5, 3, 1]


def epoch_of(sampler, epoch, size=1000):
    return sampler.order(epoch).at(np.arange(size))


@pytest.mark.parametrize(
    ("sampling", "counts"), [("balanced", [334, 333, 333]), ("sqrt", [703, 223, 74])]
)
def test_classes_are_drawn_with_their_intended_frequency(sampling, counts):
    """With "sqrt" the weights are the square roots 30, 9.49 and 3.16, of 42.65."""
    sampler = ClassSampler(LABELS, sampling, seed=0)
    assert sampler.counts.tolist() == counts
    for epoch in (0, 7):
        drawn = LABELS[epoch_of(sampler, epoch).examples]
        assert [int((drawn == c).sum()) for c in (0, 1, 3)] == counts
        # Spread over the whole epoch, not class after class.
        assert np.abs(np.diff(np.flatnonzero(drawn == 3))).max() < 150


def test_all_examples_of_a_class_are_seen_equally_often():
    sampler = ClassSampler(LABELS, "balanced", seed=3)
    seen = np.zeros(len(LABELS), int)
    pairs = set()
    for epoch in range(30):
        examples, times = epoch_of(sampler, epoch)
        np.add.at(seen, examples, 1)
        fresh = set(zip(examples.tolist(), times.tolist(), strict=True))
        assert len(fresh) == len(examples), "an image must not come twice with the same crop"
        assert not pairs & fresh, "a later epoch must not repeat a crop"
        pairs |= fresh
    for label in (0, 1, 3):
        assert np.ptp(seen[label == LABELS]) <= 1


@pytest.mark.parametrize("steps", [None, 13])
@pytest.mark.parametrize("sampling", SAMPLING)
def test_the_order_is_the_same_on_any_number_of_ranks_and_after_a_resume(sampling, steps):
    def slots(rank, world):
        sampler = ClassSampler(LABELS, sampling, seed=5)
        return Slots(1000, 24, steps, seed=5, rank=rank, world=world, sampler=sampler)

    def whole(world, epoch):
        ranks = [slots(rank, world) for rank in range(world)]
        batches = [
            np.stack([np.stack(s.batch(epoch, step)[:2]) for s in ranks], axis=-1).reshape(2, -1)
            for step in range(ranks[0].steps_per_epoch)
        ]
        return np.concatenate(batches, axis=1)

    want = whole(1, 2)
    for world in (2, 3):
        np.testing.assert_array_equal(whole(world, 2), want)
    examples, times, _ = slots(1, 3).batch_at(2, 100)  # resumes where a run was interrupted
    np.testing.assert_array_equal(np.stack([examples, times]), want[:, 101 : 100 + 24 : 3])


def test_the_order_depends_on_the_seed_and_stays_across_versions():
    labels = np.array([0, 0, 0, 1, 1, 0])
    first = ClassSampler(labels, "balanced", seed=0).order(0).at(np.arange(6))
    assert first.examples.tolist() == PINNED
    other = ClassSampler(labels, "balanced", seed=1).order(0).at(np.arange(6))
    assert other.examples.tolist() != PINNED
    seeds = example_seeds(0, first.times, first.examples)
    assert len(np.unique(seeds, axis=0)) == 6


def test_examples_without_a_label_are_never_drawn():
    labels = np.array([-1, 0, 0, 1, -1])
    drawn = epoch_of(ClassSampler(labels, "balanced", 0), 0, 5).examples
    assert set(drawn.tolist()) <= {1, 2, 3}
    with pytest.raises(ValueError, match="no example has a label"):
        ClassSampler(np.array([-1, -1]), "balanced", 0)


def test_all_labels_of_records_equal_those_of_their_examples(tiny):
    source = find_source(str(tiny), "train", tell=None)
    want = [source.parse(raw, 0)[1] for raw in source.read(np.arange(source.num_examples))]
    for _ in range(2):  # read from the files, then from the cache
        np.testing.assert_array_equal(source.all_labels(), want)
    numbers = np.arange(10)[::-1].tolist()
    renumbered = Renumbered(source, numbers, None, 10).all_labels()
    np.testing.assert_array_equal(renumbered, 9 - np.array(want))


def test_unknown_labels_stay_unknown_after_renumbering():
    class Records(Source):
        num_examples = 3

        def all_labels(self):
            return np.array([0, -1, 5], np.int32)

    assert Renumbered(Records(), [1, 0], None, 2).all_labels().tolist() == [1, -1, -1]
    assert UNREAD < 0
