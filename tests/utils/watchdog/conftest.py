"""Starts jobs for the tests of the watchdog."""

import pytest

from tests.utils.watchdog.jobs import Job


@pytest.fixture
def job(tmp_path):
    """A function that starts a job of `size` ranks."""
    made = []

    def make(size=3, how=""):
        made.append(Job(tmp_path, size, how))
        return made[-1]

    yield make
    for one in made:
        one.kill()
