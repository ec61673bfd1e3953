"""Runs the program in a process in which an import of TensorFlow, Keras or Horovod is an error."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "keras", "horovod"):
            raise AssertionError(f"imports {name}")
sys.meta_path.insert(0, Refuse())
sys.argv[:] = sys.argv[1:]
runpy.run_path("main.py", run_name="__main__")
"""


def without_tensorflow(*args):
    """Returns the finished process of `main.py ARGS`."""
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, "main.py", *map(str, args)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
