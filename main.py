"""Convoy's command line, from a checkout: `python main.py --help`."""

import sys

from convoy.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
