"""Forks ranks of the program that can be interrupted at a given place; see interruptions.py."""

import atexit
import collections
import json
import os
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def plant(plans):
    """Makes ranks write files when they reach the places of `plans`, one place after another.

    The rank `victim` of plan N writes `reached-N` when it reaches that plan's phase for the nth
    time (`at`) after the interruption before it, which is over when the file `go-(N-1)` exists. If
    the plan `holds`, the rank waits there until the file `go-N` exists.
    """
    from convoy.dataloader.loader import Loader
    from convoy.runtime import runner
    from convoy.runtime.run_folder import checkpoint
    from convoy.runtime.train import start
    from convoy.runtime.train.state_keeper import Keeper
    from convoy.runtime.train.step import Step
    from convoy.utils.distributed import ranks
    from convoy.utils.watchdog import watchdog

    mine = int(os.environ.get("HOROVOD_RANK", "0"))
    folder, counts = Path(plans[0]["folder"]), collections.Counter()

    def reach(phase):
        over = sum((folder / f"go-{number}").exists() for number in range(len(plans)))
        if over == len(plans):
            return
        plan = plans[over]
        counts[over, phase] += 1
        if (phase, mine, counts[over, phase]) != (plan["phase"], plan["victim"], plan["at"]):
            return
        if phase == "start":
            # Libraries are loaded already, so this takes milliseconds. If a rank freezes before the
            # others know it, its launcher must end it, and here is no launcher.
            watchdog.search()
        (folder / f"reached-{over}").write_text(str(os.getpid()))
        deadline, go = time.monotonic() + 100, folder / f"go-{over}"
        while plan["holds"] and not go.exists() and time.monotonic() < deadline:
            time.sleep(0.005)

    def before(owner, name, phase):
        function = getattr(owner, name)

        def wrapped(*args, **options):
            reach(phase)
            return function(*args, **options)

        setattr(owner, name, wrapped)

    batches, save = Loader.batches, checkpoint.save

    def counted(self, epoch, offset=0):
        for batch in batches(self, epoch, offset):
            reach("data" if self.training else "evaluation")
            yield batch

    def noted(model_dir, contents):
        if mine == 0:
            reach("save")
        path = save(model_dir, contents)
        with (folder / "saved").open("a") as notes:
            notes.write(f"{json.dumps([contents.state['epoch'], contents.state['offset']])}\n")
        return path

    Loader.batches, checkpoint.save = counted, noted
    before(Step, "__call__", "step")
    before(runner, "set_up", "start")
    before(ranks, "check_own_name", "start")
    before(start, "new_state", "start")
    before(Keeper, "finish", "end")
    if mine:
        before(Keeper, "save", "save")


def serve():
    """Forks ranks: reads a job as one line of JSON and prints the process ids.

    Afterwards it prints each rank's process id and exit code as it ends.
    """
    import horovod.tensorflow  # noqa: F401
    import keras  # noqa: F401
    import tensorflow  # noqa: F401

    from convoy.__main__ import main

    print("ready", flush=True)
    for line in sys.stdin:
        job, pids = json.loads(line), []
        for rank, environment in enumerate(job["places"]):
            if (pid := os.fork()) == 0:
                os.environ.update(environment)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                file = os.open(f"{job['output']}-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(file, 1)
                os.dup2(file, 2)
                code = 99
                try:
                    if job["plans"]:
                        plant(job["plans"])
                    code = main(job["arguments"])
                except SystemExit as error:
                    code = error.code
                except BaseException:
                    traceback.print_exc()
                    raise
                finally:  # as the interpreter does at its end
                    atexit._run_exitfuncs()
                    sys.stdout.flush()
                    os._exit(code)
            pids.append(pid)
        print(json.dumps(pids), flush=True)
        while pids:
            pid, status = os.wait()
            pids.remove(pid)
            print(json.dumps([pid, os.waitstatus_to_exitcode(status)]), flush=True)


if __name__ == "__main__":
    serve()
