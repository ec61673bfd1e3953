"""`python -m benchmarks`: which rows it runs, and how it ends."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.__main__ import chosen
from benchmarks.harness.machine import ROOT


def test_a_complete_name_selects_only_its_row():
    names = ["b0-1", "b0-16", "b4-1"]
    found = {word: [n for n in names if chosen(n, [word], names)] for word in ("b0-1", "b0", "-1")}
    assert found == {"b0-1": ["b0-1"], "b0": ["b0-1", "b0-16"], "-1": names}
    assert chosen("b4-1", ["b0-1", "b4"], names)
    assert chosen("b4-1", None, names)


def test_ending_a_run_ends_its_contenders_children(tmp_path):
    python, note = tmp_path / "python", tmp_path / "child"
    python.write_text(
        f"#!/bin/sh\nsleep 300 &\necho $! > {note}.part\nmv {note}.part {note}\nwait\n"
    )
    python.chmod(0o755)
    script = (
        "import sys\n"
        "from benchmarks import __main__ as command\n"
        "from benchmarks.harness.row import Entry, Row\n"
        "command.ROWS = [Row('one', 'one', [Entry('one', 'one:one', python=sys.argv.pop())])]\n"
        "command.main()"
    )
    run = subprocess.Popen([sys.executable, "-c", script, str(python)], cwd=ROOT)
    try:
        deadline = time.monotonic() + 60
        while not note.exists():
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        run.terminate()
        assert run.wait(30) == 128 + signal.SIGTERM
        child = Path(f"/proc/{int(note.read_text())}/stat")
        # It has ended, or is a zombie where nothing reads its exit status.
        assert not child.exists() or child.read_text().rpartition(")")[2].split()[0] == "Z"
    finally:
        run.kill()
        with suppress(ProcessLookupError, FileNotFoundError):
            os.kill(int(note.read_text()), signal.SIGKILL)
