"""Jobs whose ranks are processes with a watchdog, without TensorFlow."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 2.0


# One rank of a job. Files replace Horovod's broadcast and gather. It marks a place every 50 ms
# like a training loop until it is told to stop; ranks stay in step through the folder.
RANK = """
import ctypes, json, os, sys, time
from pathlib import Path
from convoy.utils.watchdog import both_sides as watcher, watchdog

folder, rank, size, how = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]

def put(name, text):
    (folder / f".{name}-{rank}").write_text(text)
    (folder / f".{name}-{rank}").rename(folder / name)

def get(name):
    if how == "proxy" and rank == 1 and name == "watchdog":
        name = "proxied"
    text = (folder / name).read_text() if (folder / name).exists() else None
    if how == "wrong token" and rank == 1 and text:
        text = json.dumps(json.loads(text) | {"token": "gue\u00dfed"})
    return text

def asked():
    return "SIGTERM" if (folder / f"signal-{rank}").exists() else ""

watcher.GRACE, watcher.PATIENCE = 0.3, 0.5
while (folder / f"late-{rank}").exists():
    time.sleep(0.01)
start_seconds = SECONDS if how == "soon" else 60.0  # three processes start slowly on a busy machine
watchdog.start(rank, size, SECONDS, one_host=True, start_seconds=start_seconds, put=put, get=get)
if (folder / f"load-{rank}").exists():  # like TensorFlow
    watchdog.search()
    with watchdog.hushed("loading TensorFlow"):
        put(f"began-{rank}", "")
        if how == "slow libraries":  # PyDLL keeps the interpreter locked
            ctypes.PyDLL(None).sleep(int(2 * SECONDS))
        else:
            time.sleep(1000)
if (folder / f"refuse-{rank}").exists():
    print("flags are refused", file=sys.stderr)
    sys.exit(2)
tell = lambda missing: print("waiting for", missing, flush=True)
trouble, stopped_by = watchdog.meet(asked, tell)
print("trouble:", trouble, flush=True)
if stopped_by:
    print("stopped by", stopped_by, flush=True)
    sys.exit(75)
step = 0
watchdog.limit_data(100 if how == "slow data" else SECONDS)
while not (folder / "stop").exists() or step < int((folder / "stop").read_text()):
    step += 1
    watchdog.await_data(f"waiting for the data of step {step}")
    time.sleep(0.03)
    if (folder / f"exit-{rank}").exists():
        os._exit(0)
    if (folder / f"fail-{rank}").exists():
        print("an error of its own", file=sys.stderr)
        watchdog.fail("an error of its own")
        os._exit(1)
    if (folder / "alike").exists():
        from convoy.runtime.exits import fail  # not in every job, as it imports NumPy
        os._exit(fail("damaged data"))
    if (folder / f"stick-{rank}").exists():
        time.sleep(1000)
    if (folder / f"slow-{rank}").exists():
        time.sleep(3 * SECONDS)
        (folder / f"slow-{rank}").unlink()
    if (folder / f"patient-{rank}").exists():
        with watchdog.patient("saving"):
            time.sleep(3 * SECONDS)
        (folder / f"patient-{rank}").unlink()
    watchdog.mark(f"exchanging step {step}")
    (folder / f"step-{rank}-{step}").touch()
    while not all((folder / f"step-{r}-{step}").exists() for r in range(size)):
        time.sleep(0.01)
print("done", flush=True)
"""


class Job:
    """A job whose ranks are separate processes."""

    def __init__(self, folder, size, how=""):
        self.folder = folder
        code = f"SECONDS = {SECONDS}\n{RANK}"
        self.ranks = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(folder), str(rank), str(size), how],
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(size)
        ]

    def wait_for(self, name):
        deadline = time.monotonic() + 60
        while not (self.folder / name).exists():
            assert time.monotonic() < deadline, name
            codes = [process.poll() for process in self.ranks]
            assert codes.count(None), f"all ranks ended before {name}: {codes}, {self.ends()[1]}"
            time.sleep(0.01)
        return (self.folder / name).read_text()

    def running(self):
        """Waits until all ranks train."""
        for rank in range(len(self.ranks)):
            self.wait_for(f"step-{rank}-5")

    def touch(self, name):
        self.put(name, "")

    def put(self, name, text):
        """Writes a file atomically."""
        (self.folder / f".{name}").write_text(text)
        (self.folder / f".{name}").rename(self.folder / name)

    def ends(self):
        """Waits for all ranks; returns their exit codes and stderr."""
        said = [process.communicate(timeout=60) for process in self.ranks]
        return [process.returncode for process in self.ranks], [err for _, err in said]

    def kill(self):
        for process in self.ranks:
            process.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()
