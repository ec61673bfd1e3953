"""Fixtures for the DALI tests: photographs, and a separate cache for each test."""

import pytest

from tests.dali.photographs import photograph


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def data(tmp_path_factory, writers):
    """53 photographs (a prime number), with label `i % 10`."""
    folder = tmp_path_factory.mktemp("photographs")
    writers.dataset(folder, [(photograph(i), i % 10) for i in range(53)], [])
    return folder
