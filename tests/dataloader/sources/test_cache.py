"""`--cache` reads each example from disk once, within its limit, and changes no batch."""

import logging
import os

import numpy as np
import pytest
import tensorflow as tf

from convoy.dataloader.errors import DataError, RecordError
from convoy.dataloader.loader import InputOptions, Loader
from convoy.dataloader.sources import cache
from convoy.dataloader.sources.cache import CachedSource, cache_source
from convoy.dataloader.sources.find import find_source
from convoy.dataloader.sources.source import Source


class Counting(Source):
    """A source of known bytes that records which examples were read; every 7th is unreadable."""

    def __init__(self, count):
        self.num_examples, self.asked = count, []

    def read(self, indices):
        self.asked += list(indices)
        if any(i % 7 == 6 for i in indices):
            raise RecordError("bad")
        return [bytes([i % 256]) * (100 + i) for i in indices]

    def parse(self, raw, label):
        return raw, label

    def locate(self, i):
        return f"file {i}", None


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_each_example_is_read_once(kind, tmp_path, caplog):
    source = Counting(50)
    with caplog.at_level(logging.INFO, "convoy.data"):
        cached = cache_source(source, kind, folder=str(tmp_path) if kind == "disk" else None)
    assert "GB of encoded images in " in caplog.text
    good = np.array([i for i in range(50) if i % 7 != 6])
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(good)
        for part in np.array_split(order, 5):
            assert cached.read(part) == Counting(50).read(part)
    assert sorted(source.asked) == good.tolist()
    assert cached.cached == (len(good), int((100 + good).sum()))
    for _ in range(2):
        with pytest.raises(RecordError):
            cached.read(np.array([6]))
    assert cached.describe(3) == "file 3"
    if kind == "disk":
        assert not os.listdir(tmp_path), "the cache file must have no name"


def test_the_cache_keeps_its_limit_and_warns_once(caplog):
    source = Counting(50)
    cached = cache_source(source, "ram", 1000 / 1e9)
    good = np.array([i for i in range(50) if i % 7 != 6])
    for _ in range(2):
        assert cached.read(good) == Counting(50).read(good)
    count, size = cached.cached
    assert size <= 1000
    assert count == 9
    assert caplog.text.count("the cache is full with 9 of 50") == 1


def test_a_full_disk_only_ends_caching(small_disk, caplog):
    source = Counting(4000)
    cached = cache_source(source, "disk", 1.0, str(small_disk))
    good = np.array([i for i in range(4000) if i % 7 != 6])
    for part in np.array_split(good, 40):
        assert cached.read(part) == Counting(4000).read(part)
    assert "the cache is full" in caplog.text
    count, size = cached.cached
    assert 0 < size <= 2**20
    assert cached.read(good[:count]) == Counting(4000).read(good[:count])


def test_default_limits_and_refused_settings_of_the_cache(tmp_path):
    source = Counting(3)
    assert cache_source(source, "none") is source
    assert isinstance(cache_source(source, "ram"), CachedSource)
    assert cache_source(source, "ram", processes=4)._limit < cache.free_memory() / 8
    with pytest.raises(DataError, match="--cache_dir"):
        cache_source(source, "disk", folder=str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="--cache_dir"):
        cache_source(source, "disk", 1.0, folder=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="'tape'"):
        cache_source(source, "tape")


def test_batches_with_the_cache_equal_those_without(tiny, monkeypatch):
    options = InputOptions(image_size=16, batch_size=8, num_workers=2)

    def epochs(source, first, offset):
        loader = Loader(source, options, training=True)
        return [
            tf.nest.map_structure(lambda t: t.numpy(), batch)
            for epoch in (first, first + 1)
            for batch in loader.batches(epoch, offset)
        ]

    plain = epochs(find_source(tiny, "train"), 1, 24)
    source = cache_source(find_source(tiny, "train"), "ram")
    for _ in range(2):  # fills the cache, then reads from it
        for one, two in zip(plain, epochs(source, 1, 24), strict=True):
            assert all((a == b).all() for a, b in zip(one, two, strict=True))
    inner = source.inner
    monkeypatch.setattr(inner, "read", lambda indices: pytest.fail("read again"))
    kept = np.flatnonzero(source._offsets >= 0)
    assert len(kept) > 90
    source.read(kept)
