"""Fixtures for the tests of training."""

import pytest

from main import main


@pytest.fixture
def run_main(capfd):
    """Runs the program in this process; returns its exit code and its output joined to one line."""

    def run(*args):
        code = main([str(arg) for arg in args])
        printed = capfd.readouterr()
        return code, " ".join((printed.out + printed.err).split())

    return run
