"""Convoy's command line, from a checkout: `python main.py --help`."""

import sys
from pathlib import Path

# Python puts it there too, unless it is told not to (PYTHONSAFEPATH, -P).
sys.path.insert(0, str(Path(__file__).resolve().parent))

from convoy.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
