"""The process of one contender."""

import subprocess
import sys

from benchmarks.harness.contender import cpu_seconds


def test_processor_time_includes_running_and_ended_children():
    before = cpu_seconds()
    script = "import time\nwhile time.process_time() < 0.15: pass\nprint(flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    child.stdout.readline()
    living = cpu_seconds()
    child.communicate(b"\n")
    assert living - before >= 0.14
    assert cpu_seconds() - before >= 0.14  # also after it has ended
