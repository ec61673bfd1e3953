"""Interrupts real runs repeatedly and checks what they leave: `python … --rounds N --seed S`.

A chain is one run on 1 to 4 ranks that is interrupted and resumed several times and then finishes.
It must end with the bits of an undisturbed run. A job that survives an interruption, being asleep
or a full disk, may get the next one as well. The seed determines all interruptions. Ranks are
forked from one process that has imported TensorFlow and Horovod but not used them. Interruptions
of the start of a job are tested with real processes of `main.py --nproc`.
"""

import argparse
import collections
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
KINDS = ("SIGKILL", "SIGTERM", "SIGSTOP", "SIGSTOP+SIGCONT", "disk full")
GOES_ON = ("SIGSTOP+SIGCONT", "disk full")  # kinds after which a job can go on
PHASES = ("start", "data", "step", "save", "evaluation", "end")
MOST = 4  # interruptions of one job
LONGEST_END, PATIENCE, DISK = 30.0, 600.0, 6  # seconds, and megabytes
FLAGS = (
    *("--arch", "efficientnet-test", "--eval_batch_size", "4", "--lr_init", "0.05"),
    *("--intraop_threads", "1", "--interop_threads", "1", "--augmenter_name", "none"),
    *("--dropout", "0.3", "--moving_average_decay", "0.9"),
    *("--log_steps", "1", "--warmup_epochs", "1", "--no-training_report", "--max_epochs", "3"),
)


class Server:
    """The process that forks ranks."""

    def __init__(self):
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "tests/integration/interrupted_ranks.py"],
            cwd=ROOT, env=os.environ | quiet, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout.readline() == "ready\n"

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


class Job:
    """The ranks of one launch, and their exit codes."""

    def __init__(self, server, size, arguments, folder, plans=()):
        from convoy.utils.distributed.slurm_and_nproc import serve as rendezvous

        self.server, self.folder, self.size = server, folder, size
        self.meeting, places = rendezvous([size]) if size > 1 else (None, [{}])
        home = {"HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1", "HOROVOD_GLOO_IFACE": "lo"}
        places = [place | (home if size > 1 else {}) for place in places]
        for path in (*folder.glob("reached-*"), *folder.glob("go-*")):
            path.unlink()
        line = {"places": places, "arguments": arguments, "plans": plans}
        line["output"] = str(folder / "output")
        server.process.stdin.write(json.dumps(line) + "\n")
        server.process.stdin.flush()
        self.pids = json.loads(server.process.stdout.readline())
        self.codes, self.rest = {}, b""
        os.set_blocking(server.process.stdout.fileno(), False)

    def ended(self):
        """Returns whether all ranks have ended."""
        with contextlib.suppress(BlockingIOError):
            self.rest += os.read(self.server.process.stdout.fileno(), 65536)
        *lines, self.rest = self.rest.split(b"\n")
        self.codes.update(json.loads(line) for line in lines)
        return len(self.codes) == self.size

    def wait(self, seconds, until=lambda: False):
        """Waits until all ranks have ended or `until()` holds; returns False after `seconds`."""
        deadline = time.monotonic() + seconds
        while not self.ended():
            if until():
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def send(self, number, ranks):
        for rank in ranks:
            if self.pids[rank] not in self.codes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pids[rank], number)

    def close(self):
        """Kills the remaining ranks; returns their number."""
        left = self.size - len(self.codes)
        self.send(signal.SIGKILL, range(self.size))
        self.wait(30)
        os.set_blocking(self.server.process.stdout.fileno(), True)
        if self.meeting:
            self.meeting.shutdown()
            self.meeting.server_close()
        return left

    def text(self):
        files = sorted(self.folder.glob("output-*"))
        return "\n".join(f"--- {f.name}\n{f.read_text(errors='replace')}" for f in files)


def position(folder):
    """Returns epoch and offset of the newest checkpoint.

    All checkpoints that readers accept are loaded and compared with their checksums.
    """
    import numpy as np

    from convoy.runtime.run_folder import checkpoint

    newest = (-1, -1)
    for path in checkpoint.complete_checkpoints(folder):
        for name, facts in json.loads((path / checkpoint.MARKER).read_text()).items():
            data = (path / name).read_bytes()
            assert len(data) == facts["size"], f"{path / name} is damaged"
            assert hashlib.sha256(data).hexdigest() == facts["sha256"], f"{path / name} is damaged"
        saved = checkpoint.read(path)
        assert all(np.isfinite(array).all() for array in saved.model.values())
        newest = max(newest, (saved.state["epoch"], saved.state["offset"]))
    return newest


def bits(folder):
    """Returns a hash of the newest checkpoint's weights, optimizer state and metrics."""
    from convoy.runtime.run_folder import checkpoint

    saved, digest = checkpoint.read(checkpoint.latest(folder)), hashlib.sha256()
    for part in ("model", "ema", "optimizer", "ranks"):
        for name, array in sorted(getattr(saved, part).items()):
            digest.update(f"{part} {name} {array.dtype}".encode() + array.tobytes())
    for name in ("step", "epoch", "offset", "best", "score", "metrics"):
        value = saved.state[name]
        if name == "metrics":
            value = {n: v for n, v in value.items() if "per_second" not in n and "tency" not in n}
            value = {n: v for n, v in value.items() if "time" not in n}
        digest.update(json.dumps([name, value], sort_keys=True).encode())
    return digest.hexdigest()


class Interruptions:
    """Chains of interrupted runs.

    Args:
        work: the folder for all files.
        disk: a small file system within it, or None.
        flags: flags of a run, without folders and batch size.
        seed: determines all interruptions.
        asleep: seconds for which whole jobs are suspended.
        sizes: possible numbers of ranks.
    """

    def __init__(self, work, disk, flags, seed, asleep=40.0, sizes=(1, 2, 3, 4)):
        self.work, self.disk, self.flags = work, disk, flags
        self.rng, self.asleep, self.sizes = random.Random(seed), asleep, sizes
        self.server, self.whole, self.deck = Server(), {}, []
        self.table, self.slowest = collections.Counter(), 0.0
        self.chains = self.lefts = self.late = 0
        self.ended = collections.Counter()  # finished runs, by number of ranks

    def arguments(self, size, folder, *more):
        batch = ("--train_batch_size", str(12 // size), "--model_dir", str(folder))
        return [*map(str, self.flags), *batch, *more]

    def undisturbed(self, size):
        """Returns the hash of a run on `size` ranks that nothing interrupts."""
        if size not in self.whole:
            folder = self.work / f"whole-{size}"
            folder.mkdir()
            self.to_its_end(size, self.arguments(size, folder / "run"), folder)
            self.whole[size] = bits(folder / "run")
        return self.whole[size]

    def to_its_end(self, size, arguments, folder):
        job = Job(self.server, size, arguments, folder)
        try:
            assert job.wait(PATIENCE), f"it hangs without an interruption: {job.text()}"
            assert set(job.codes.values()) == {0}, job.text()
        finally:
            self.lefts += job.close()

    def chain(self, rounds):
        """Runs one chain with at most `rounds` interruptions; returns their number."""
        size = self.rng.choice(self.sizes)
        whole, self.chains = self.undisturbed(size), self.chains + 1
        folder = self.work / f"chain-{self.chains}"
        folder.mkdir()
        run = (self.disk or folder) / f"run-{self.chains}"
        arguments = self.arguments(size, run, "--checkpoint_every_minutes", "1e-9")
        done = 0
        while done < rounds:
            plans = self.plans(size, folder, rounds - done)
            job = Job(self.server, size, [*arguments, "--resume_checkpoint"], folder, plans)
            try:
                counted = self.job(job, run, plans)
            except AssertionError as error:
                raise AssertionError(f"{plans} of {size}: {error}\n{job.text()}") from error
            finally:
                self.lefts += job.close()
            done += counted
            if counted < len(plans):  # the job ended first: keep these for the next ones
                self.deck[:0] = [(plan["kind"], plan["phase"]) for plan in plans[counted:]]
            if set(job.codes.values()) == {0}:
                break
        self.to_its_end(size, [*arguments, "--resume_checkpoint"], folder)
        assert bits(run) == whole, f"chain {self.chains} of {size} ranks ended with other bits"
        self.ended[size] += 1
        for each in (run, folder):
            shutil.rmtree(each, ignore_errors=True)
        return done

    def plans(self, size, folder, most):
        """Draws the interruptions of the next job; all but the last are such that it goes on."""
        plans = [self.plan(size, folder)]
        while len(plans) < min(most, MOST) and plans[-1]["kind"] in GOES_ON:
            if plans[-1]["phase"] == "end" or not (plan := self.plan(size, folder, started=True)):
                break
            plans.append(plan)
        return plans

    def plan(self, size, folder, started=False):
        """Draws an interruption; each kind comes in each phase before one is repeated.

        Returns None if the job has `started` and only interruptions of its start are left.
        """

        def fits(kind, phase):
            # No rank would notice that a single process is stopped.
            return (size > 1 or kind != "SIGSTOP") and not (started and phase == "start")

        while (place := next((n for n, o in enumerate(self.deck) if fits(*o)), None)) is None:
            if started:
                return None
            kinds = [kind for kind in KINDS if kind != "disk full" or self.disk]
            self.deck = [(kind, phase) for kind in kinds for phase in PHASES]
            self.rng.shuffle(self.deck)
        kind, phase = self.deck.pop(place)
        # Small numbers, so that a chain progresses slowly.
        most = {"start": 3, "evaluation": 3, "end": 1}.get(phase, 4)
        return {
            "kind": kind,
            "phase": phase,
            "at": self.rng.randint(1, most),
            "victim": self.rng.randrange(size),
            "holds": self.rng.random() < 0.5,
            "delay": self.rng.uniform(0, 0.05),
            "folder": str(folder),
        }

    def job(self, job, run, plans):
        """Interrupts a job as planned and checks what it leaves.

        Returns the number of interruptions that it had before it ended.
        """
        before, folder = position(run), Path(plans[0]["folder"])
        (folder / "saved").unlink(missing_ok=True)
        had = []
        for number, plan in enumerate(plans):
            reached = folder / f"reached-{number}"
            assert job.wait(PATIENCE, reached.exists), "it hangs without an interruption"
            if not reached.exists():
                break
            time.sleep(plan["delay"])
            self.interrupt(job, run, plan, folder / f"go-{number}")
            had.append(plan)
        start = time.monotonic()
        assert job.wait(120), f"still running: {job.codes}"
        took = time.monotonic() - start
        if had and had[-1]["kind"] not in GOES_ON:
            self.slowest = max(self.slowest, took)
            self.late += took > LONGEST_END
        self.check_codes(job, had)
        saved = [tuple(json.loads(line)) for line in self.lines(folder / "saved")]
        after = position(run)
        assert after >= max([before, *saved]), f"at {after} after {before}, saved {saved[-1:]}"
        for plan in had:
            self.table[plan["kind"], plan["phase"]] += 1
        return len(had)

    def interrupt(self, job, run, plan, go):
        """Does to a job what the plan says; `go` is the file that tells ranks that it is done."""
        kind, everyone = plan["kind"], range(job.size)
        if kind == "SIGSTOP+SIGCONT":
            job.send(signal.SIGSTOP, self.rng.sample(everyone, job.size))
            time.sleep(self.asleep)
            job.send(signal.SIGCONT, self.rng.sample(everyone, job.size))
        elif kind == "disk full":
            self.fill(job, run, go)
        else:
            job.send(signal.Signals[kind], [plan["victim"]])
        go.touch()

    def fill(self, job, run, go):
        """Fills the disk for up to 3 s; then waits until the job saves again, or ends."""
        assert run.parent.is_mount(), "only the small disk may be filled"
        filler, notes = run.parent / "filler", go.parent / "saved"
        with contextlib.suppress(OSError):
            filler.write_bytes(bytes(DISK << 20))
        saves = len(self.lines(notes))
        go.touch()
        job.wait(self.rng.uniform(0, 3))
        filler.unlink()
        assert job.wait(PATIENCE, lambda: len(self.lines(notes)) > saves), "it saves no more"

    @staticmethod
    def lines(path):
        return path.read_text().splitlines() if path.exists() else []

    def check_codes(self, job, had):
        codes, text = [job.codes[pid] for pid in job.pids], job.text()
        kind, victim = (had[-1]["kind"], had[-1]["victim"]) if had else (None, None)
        assert "a bug in Convoy" not in text
        if any(plan["kind"] == "disk full" for plan in had) and set(codes) == {1}:
            return  # its last save failed; what came afterwards found no process
        if kind in (None, *GOES_ON):
            assert set(codes) == {0}, codes
        elif kind == "SIGTERM":
            assert set(codes) <= {0, 75}, codes
            assert len(set(codes)) == 1, codes
        elif set(codes) != {0}:  # the victim had already finished
            others = [code for rank, code in enumerate(codes) if rank != victim]
            assert codes[victim] == -signal.SIGKILL, codes
            assert set(others) <= {1} or set(others) == {0}, codes
            if 1 in others:
                assert f"rank {victim} on host" in text

    def close(self):
        self.server.close()

    def print(self):
        print(f"{'':18}" + "".join(f"{phase:>12}" for phase in PHASES))
        for kind in KINDS:
            counts = [self.table[kind, phase] for phase in PHASES]
            print(f"{kind:18}" + "".join(f"{count:12}" for count in counts))
        total = sum(self.table.values())
        ended = ", ".join(f"{n} on {size}" for size, n in sorted(self.ended.items()))
        print(f"{total} interruptions, {self.late} ends beyond {LONGEST_END:.0f} s, the slowest")
        print(f"{self.slowest:.1f} s, orphans {self.lefts}; runs that ended with the bits of one")
        print(f"undisturbed, by ranks: {ended}", flush=True)


def small_disk(folder, megabytes=DISK):
    """Mounts a tmpfs and returns its folder, or None where mounting is not allowed."""
    folder.mkdir()
    size = f"size={megabytes}m"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], capture_output=True
    )
    return folder if done.returncode == 0 else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        disk = small_disk(work / "disk")
        sys.path.insert(0, str(ROOT / "tests"))
        from conftest import handwritten, write_dataset

        examples = handwritten(150)
        data = write_dataset(work / "data", examples[:97], examples[97:])
        chains = Interruptions(work, disk, [*FLAGS, "--data_dir", data], options.seed)
        failed = 0
        try:
            while (done := sum(chains.table.values())) + failed < options.rounds:
                try:
                    chains.chain(options.rounds - done - failed)
                except AssertionError as error:
                    failed += 1
                    print(f"FAILED: {error}")
                chains.print()
                print(f"failed checks: {failed}", flush=True)
        finally:
            chains.close()
            if disk:
                subprocess.run(["umount", "-l", disk], check=True)


if __name__ == "__main__":
    main()
