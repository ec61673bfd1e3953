"""Runs the program in the test's own process."""

from main import main


def run(*args):
    """Runs main.py with arguments that may be paths or numbers; returns its exit code."""
    return main([str(arg) for arg in args])


def start(*args, code=0):
    """Runs main.py and asserts its exit code."""
    assert run(*args) == code
