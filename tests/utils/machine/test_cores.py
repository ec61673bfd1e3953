"""The number of cores that a process may use."""

import os

import pytest

from convoy.utils.machine import cores


@pytest.mark.parametrize(
    ("quota", "want"), [("max 100000", 8), ("250000 100000", 3), ("5000 100000", 1), ("", 8)]
)
def test_a_containers_quota_bounds_the_cores(monkeypatch, tmp_path, quota, want):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "cpu.max")
    assert cores.usable_cores() == 8
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert cores.usable_cores() == want
