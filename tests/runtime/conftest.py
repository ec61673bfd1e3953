"""Fixtures for several rooms of the tests of runtime/."""

import numpy as np
import pytest

from convoy.runtime.command_line.cli import parse


@pytest.fixture
def refused(capsys):
    """Runs the parser on arguments that it must refuse; returns its message joined to one line."""

    def run(*args):
        with pytest.raises(SystemExit) as exit_:
            parse([str(arg) for arg in args])
        assert exit_.value.code == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("convoy: ")
        assert "Traceback" not in err
        return " ".join(err.split())

    return run


@pytest.fixture(scope="session")
def tints(writers, tmp_path_factory):
    """320 training and 160 validation pictures: noise in four faint tints, which a small network
    learns in four epochs if batch norm works.
    """
    draw = np.random.default_rng(0)
    colours = 12 * np.array([[1, -1, 0], [0, 1, -1], [-1, 0, 1], [1, 0, -1]])

    def pixels(label):
        noise = draw.integers(-40, 40, (32, 32, 3))
        return (draw.integers(60, 190) + colours[label] + noise).clip(0, 255).astype(np.uint8)

    examples = [(pixels(i % 4), i % 4) for i in range(480)]
    folder = tmp_path_factory.mktemp("tints")
    return writers.dataset(folder, examples[:320], examples[320:], names=["r", "g", "b", "y"])
