"""Runs the program in a fresh interpreter that reports the heavy libraries it has loaded."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
import main
try:
    code = main.main(sys.argv[1:])
except SystemExit as error:
    code = error.code
print("code", code, "loaded", [m for m in ("tensorflow", "keras", "horovod") if m in sys.modules])
"""


def run_and_report(*args):
    """Returns the finished process; its last line is like `code 0 loaded ['tensorflow']`."""
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, args)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
