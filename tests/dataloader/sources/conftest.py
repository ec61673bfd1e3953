"""Fixtures for the tests of data sources."""

import pytest


@pytest.fixture
def data(tmp_path):
    """An empty data folder."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data"
