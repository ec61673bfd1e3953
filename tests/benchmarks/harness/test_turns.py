"""Contenders as real processes."""

import pytest

from benchmarks.harness.row import Entry
from benchmarks.harness.turns import Failed, Worker


def test_a_contender_that_crashes_is_reported_with_its_error():
    # The function returns no contender.
    entry = Entry("broken", "training:random_batch", {"size": 2, "batch": 1})
    with Worker(entry) as worker, pytest.raises(Failed, match="broken: AttributeError: 'tuple'"):
        worker.begin(1.0)


def test_a_contender_that_exceeds_its_time_limit_is_stopped():
    with (
        Worker(Entry("slow", "training:random_batch", {"size": 2, "batch": 1})) as worker,
        pytest.raises(Failed, match="slow: no answer in 0 s"),
    ):
        worker.begin(1.0, limit_s=0.0)
