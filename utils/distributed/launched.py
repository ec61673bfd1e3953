"""Detects how this process was started, and finds the others before Horovod starts.

Loads neither TensorFlow nor Horovod, except for the server that `slurm_and_nproc` starts.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from convoy.utils.distributed.launcher_store import ADDRESS, PORT, Store
from convoy.utils.distributed.slurm_and_nproc import DistributedError, slurm_place
from convoy.utils.watchdog import watchdog

# Set by horovodrun (Gloo), Open MPI, and Slurm's PMI; each holds the number of processes.
_SIZE_VARIABLES = ("HOROVOD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_SIZE")

# Used until flags set another value.
WATCHDOG_SECONDS = 20.0
# Tasks of one job start in the same second if one launcher starts them on one host. Schedulers and
# containers may take minutes on one host and no time on another.
_START_SECONDS = 600.0
# Gloo ends a process that has waited 30 s for another, and so a whole job that was stopped
# (SIGSTOP, a suspended machine) as soon as it continues. The watchdog is faster and knows the
# difference.
_GLOO_SECONDS = str(30 * 24 * 3600)


class StoppedEarly(RuntimeError):
    """A signal, named in the text, reached a rank before all had started."""


def launched_processes() -> int:
    """Returns the launcher's number of processes; 1 without a launcher."""
    for name in _SIZE_VARIABLES:
        value = os.environ.get(name, "")
        if value.isdigit():
            return int(value)
    # srun sets SLURM_PROCID only for its tasks; sbatch's own script has SLURM_NTASKS too.
    if "SLURM_STEP_NUM_TASKS" in os.environ and "SLURM_PROCID" in os.environ:
        return int(os.environ["SLURM_STEP_NUM_TASKS"])
    return 1


def launch_variable() -> str:
    """Returns the environment variable that `launched_processes` uses; "" without a launcher."""
    for name in _SIZE_VARIABLES:
        if os.environ.get(name, "").isdigit():
            return name
    return "SLURM_STEP_NUM_TASKS" if launched_processes() > 1 else ""


def check_launch() -> None:
    """Checks the launch before anything waits.

    Raises:
        DistributedError: some of horovodrun's variables are set, but not those that lead to it.
            This happens in a shell within another job, or with a saved environment.
    """
    horovods = [name for name in ("HOROVOD_SIZE", "HOROVOD_ELASTIC") if name in os.environ]
    alone = os.environ.get("HOROVOD_SIZE", "1") == "1" and "HOROVOD_ELASTIC" not in os.environ
    if alone or "HOROVOD_GLOO_RENDEZVOUS_ADDR" in os.environ:
        return
    verb = "are" if len(horovods) > 1 else "is"
    raise DistributedError(
        f"{' and '.join(horovods)} in the environment {verb} another job's, as the address of its"
        " launcher (HOROVOD_GLOO_RENDEZVOUS_ADDR) is missing: unset them, or start"
        " with horovodrun --gloo or --nproc"
    )


def elastic() -> bool:
    """Returns whether the launcher may add and remove processes (`horovodrun --min-np …`)."""
    return "HOROVOD_ELASTIC" in os.environ


def elastic_job() -> str:
    """Returns a key that only the processes of one elastic job share; "" in other jobs."""
    if not elastic():
        return ""
    names = ("HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT")
    return ":".join(os.environ.get(name, "") for name in names)


def begin(mpi: bool | None = None) -> None:
    """Tells the other ranks about this one, and about its end, while it loads slow libraries.

    Returns at once. Does nothing if only `init` can do it (under MPI) or has already done it.

    Args:
        mpi: whether Horovod can use MPI; None: not known yet.

    Raises:
        DistributedError: the launch cannot work.
    """
    if watchdog.rank() is not None or elastic() or launched_processes() == 1:
        return
    place = {**os.environ, **slurm_place(mpi)}
    if not {"HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_SIZE", ADDRESS, PORT} <= place.keys():
        return
    one_host = place["HOROVOD_LOCAL_SIZE"] == place["HOROVOD_SIZE"]
    together = one_host and "SLURM_STEP_NUM_TASKS" not in place
    store = Store(place, seconds=5.0)  # the watchdog's thread waits for it
    watchdog.start(
        int(place["HOROVOD_RANK"]),
        int(place["HOROVOD_SIZE"]),
        WATCHDOG_SECONDS,
        one_host=one_host,
        start_seconds=WATCHDOG_SECONDS if together else _START_SECONDS,
        put=store.put,
        get=store.get,
    )


def meet(
    wanted: int,
    seconds: float,
    asked: Callable[[], str],
    say: Callable[[str], None],
) -> None:
    """Waits until all ranks have called this; Horovod itself waits only 30 s.

    Args:
        wanted: number of ranks.
        seconds: see `ranks.init`.
        asked: see `ranks.init`.
        say: see `ranks.init`.

    Raises:
        StoppedEarly: a signal reached a rank before all had started.
    """
    variable = launch_variable()

    def tell(missing: str) -> None:
        text = f"waiting for {missing} of {wanted}"
        if variable.startswith("SLURM"):
            step = f"{os.environ['SLURM_JOB_ID']}.{os.environ['SLURM_STEP_ID']}"
            text += f" in Slurm's step {step}; to run alone: srun -n 1, or unset {variable}"
        say(text)

    trouble, signal = watchdog.meet(asked, tell)
    if signal:
        raise StoppedEarly(signal)
    if trouble:
        if watchdog.rank() == 0:
            say(no_watchdog(trouble))
    elif watchdog.rank() is not None and seconds:
        os.environ.setdefault("HOROVOD_GLOO_TIMEOUT_SECONDS", _GLOO_SECONDS)
    else:
        watchdog.stop()


def no_watchdog(trouble: str) -> str:
    """Returns the message for ranks that do not watch each other."""
    return f"WARNING: no watchdog: {trouble}; a frozen process will not end the job"
