"""Runs Convoy's command line from a checkout: `python main.py --help`."""

import sys

if sys.version_info < (3, 10):  # noqa: UP036
    # In syntax that Python 2 understands too.
    sys.exit(
        "convoy: Python 3.10 or newer is needed, and this is "
        + sys.version.split()[0]
        + ". Run make setup once, then .venv/bin/python main.py, or source .venv/bin/activate"
    )

from pathlib import Path

# Python does this too, unless PYTHONSAFEPATH or -P forbids it.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from convoy.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
