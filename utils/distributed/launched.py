"""How this process was started: alone, or as one of several, and how it finds the others before
Horovod begins. Loads neither TensorFlow nor Horovod, but for the server that `rendezvous` starts.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from convoy.utils.distributed.launcher_store import ADDRESS, PORT, Store
from convoy.utils.distributed.rendezvous import DistributedError, slurm_place
from convoy.utils.watchdog import watchdog

# Set by horovodrun (Gloo), Open MPI, and Slurm's PMI; each is the number of processes.
_SIZE_VARIABLES = ("HOROVOD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_SIZE")

# Until flags say otherwise.
WATCHDOG_SECONDS = 20.0
# Tasks of one job start in the same second where one launcher starts them on one host; schedulers
# and containers may take minutes on one host and none on another.
_START_SECONDS = 600.0
# Gloo ends a process that has waited for another for 30 s, and a job that was stopped as a whole
# (SIGSTOP, a suspended machine) has, when it goes on. The watchdog knows better, and is earlier.
_GLOO_SECONDS = str(30 * 24 * 3600)


class StoppedEarly(RuntimeError):
    """A signal, whose name this is, came on a rank before all had started."""


def launched_processes() -> int:
    """How many processes the launcher says there are; 1 without a launcher."""
    for name in _SIZE_VARIABLES:
        value = os.environ.get(name, "")
        if value.isdigit():
            return int(value)
    # srun sets SLURM_PROCID for its tasks only; sbatch's own script has SLURM_NTASKS too.
    if "SLURM_STEP_NUM_TASKS" in os.environ and "SLURM_PROCID" in os.environ:
        return int(os.environ["SLURM_STEP_NUM_TASKS"])
    return 1


def launch_variable() -> str:
    """The environment variable that `launched_processes` goes by; "" without a launcher."""
    for name in _SIZE_VARIABLES:
        if os.environ.get(name, "").isdigit():
            return name
    return "SLURM_STEP_NUM_TASKS" if launched_processes() > 1 else ""


def check_launch() -> None:
    """Before anything is waited for.

    Raises:
        DistributedError: variables of horovodrun are there, and not those that lead to it. A shell
            within another job, or one that has noted its environment, has such.
    """
    horovods = [name for name in ("HOROVOD_SIZE", "HOROVOD_ELASTIC") if name in os.environ]
    alone = os.environ.get("HOROVOD_SIZE", "1") == "1" and "HOROVOD_ELASTIC" not in os.environ
    if alone or "HOROVOD_GLOO_RENDEZVOUS_ADDR" in os.environ:
        return
    verb = "are" if len(horovods) > 1 else "is"
    raise DistributedError(
        f"{' and '.join(horovods)} in the environment {verb} another job's, as the address of its"
        " launcher (HOROVOD_GLOO_RENDEZVOUS_ADDR) is missing: unset what is left of it, or start"
        " with horovodrun --gloo or --nproc"
    )


def elastic() -> bool:
    """Whether the launcher may add and remove processes (`horovodrun --min-np …`)."""
    return "HOROVOD_ELASTIC" in os.environ


def elastic_job() -> str:
    """What the processes of an elastic job have in common, and no others; "" in other jobs."""
    if not elastic():
        return ""
    names = ("HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT")
    return ":".join(os.environ.get(name, "") for name in names)


def begin(mpi: bool | None = None) -> None:
    """Lets the other ranks know of this one, and of its end, while it loads what takes long.
    Returns at once, and does nothing where `init` can do it only (under MPI) or did already.

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
    """Waits until all ranks have come here, which Horovod itself does for 30 s only.

    Args:
        wanted: how many ranks there are.
        seconds, asked, say: see `distributed.init`.

    Raises:
        StoppedEarly: a signal came on a rank before all had started.
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
    """What to say where ranks do not watch each other."""
    return f"WARNING: no watchdog: {trouble}; a frozen process will not end the job"
