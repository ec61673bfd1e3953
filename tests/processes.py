"""The program as a process, alone or as ranks of a Horovod job, and its output."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOROVODRUN = Path(sys.executable).with_name("horovodrun")


@dataclass
class Finished:
    """The exit code, standard output and standard error of a finished process."""

    code: int
    out: str
    err: str

    @property
    def text(self):
        """Both outputs: horovodrun sends the errors of some ranks to either one."""
        return self.out + self.err


@dataclass
class Running:
    """A started process whose output goes to files, so that it can be read while it runs."""

    process: subprocess.Popen
    out: Path
    err: Path

    @property
    def text(self):
        return self.out.read_text(errors="replace") + self.err.read_text(errors="replace")

    def children(self):
        """All descendants of this process: horovodrun's helpers and the ranks."""
        import psutil

        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def ranks(self, name="main.py"):
        """Returns the Python processes under horovodrun that run main.py or another script,
        ordered by rank.
        """
        found = {}
        for child in self.children():
            rank = child.environ().get("HOROVOD_RANK")
            if rank is not None and child.cmdline()[1:2] and child.cmdline()[1].endswith(name):
                found[int(rank)] = child
        return [found[rank] for rank in sorted(found)]

    def wait_for(self, text, timeout=120):
        """Waits until the output contains `text`; fails if the process ends or times out first."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if text in self.text:
                return
            if self.process.poll() is not None and text not in self.text:
                pytest.fail(f"ended ({self.process.returncode}) without {text!r}:\n{self.text}")
            time.sleep(0.02)
        self.end()
        pytest.fail(f"no {text!r} within {timeout} s:\n{self.text}")

    def finish(self, timeout=120):
        """Waits for the process to end; kills it and fails the test after `timeout` seconds."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.end()
            pytest.fail(f"still running after {timeout} s:\n{self.text}")
        return Finished(
            self.process.returncode,
            self.out.read_text(errors="replace"),
            self.err.read_text(errors="replace"),
        )

    def end(self):
        """Kills the process and all its descendants."""
        import psutil

        everyone = self.children()
        self.process.kill()
        for child in everyone:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self.process.wait(10)


@dataclass
class Convoy:
    """Starts `python main.py …`, or another script, alone or under horovodrun."""

    folder: Path
    cache: Path
    started: list = field(default_factory=list)

    def start(self, *args, np=1, env=None, script="main.py", elastic=None):
        """Starts the program and returns a `Running`.

        With `np` above 1 or the flags `elastic` it starts through horovodrun.
        """
        number = len(self.started)
        command = [sys.executable, str(script), *map(str, args)]
        if elastic:
            command = [str(HOROVODRUN), "--gloo", *map(str, elastic), *command]
        elif np > 1:
            command = [str(HOROVODRUN), "--gloo", "-np", str(np), "-H", f"localhost:{np}", *command]
        settings = os.environ | {
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",
            "PYTHONPATH": str(ROOT),
            "XDG_CACHE_HOME": str(self.cache),
        }
        out, err = (self.folder / f"{number}.{kind}" for kind in ("out", "err"))
        with out.open("wb") as out_file, err.open("wb") as err_file:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=settings | (env or {}),
                stdin=subprocess.DEVNULL,
                stdout=out_file,
                stderr=err_file,
            )
        running = Running(process, out, err)
        self.started.append(running)
        return running

    def __call__(self, *args, np=1, env=None, script="main.py", timeout=240, code=0):
        """Runs the program to its end, checks the exit code (None: any), returns a `Finished`."""
        done = self.start(*args, np=np, env=env, script=script).finish(timeout)
        if code is not None:
            assert done.code == code, done.text
        return done
