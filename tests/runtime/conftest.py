"""What the tests of flags share."""

import pytest

from convoy.runtime.cli import parse


@pytest.fixture
def refused(capsys):
    """Runs the parser on arguments that it must refuse, and returns its message as one line."""

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
