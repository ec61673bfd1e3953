"""Lets processes of one job find each other if horovodrun did not arrange it.

Horovod's Gloo asks a small HTTP server, the rendezvous, for its peers' addresses, and reads its own
place from the environment. This module starts Horovod's own server and works out the places: for
processes on this host (`--nproc`), and for the tasks of a Slurm step (`srun python main.py`). Does
not load TensorFlow.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from convoy.utils.distributed.launcher_store import ADDRESS, PORT
from convoy.utils.errors import UserError


class DistributedError(UserError, RuntimeError):
    """The launch asks for several processes, but they cannot work together."""


def serve(tasks: Sequence[int], port: int = 0) -> tuple[Any, list[dict[str, str]]]:
    """Starts a rendezvous server, which lives as long as this process.

    Args:
        tasks: number of processes on each host, in rank order.
        port: 0 takes any free port.

    Returns:
        the server, and each rank's environment.

    Raises:
        DistributedError: Horovod is missing, or the port is taken.
    """
    try:
        from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer
        from horovod.runner.util.threads import in_thread
    except ImportError as error:
        raise _missing(sum(tasks), error) from error
    try:
        server = RendezvousHTTPServer(("", port), RendezvousHandler, 0)
    except OSError as error:
        raise DistributedError(
            f"port {port}, where this job's processes are to meet, cannot be used ({error});"
            " name a free one with HOROVOD_GLOO_RENDEZVOUS_PORT"
        ) from error
    # ignore a rank that was killed during its request; others report that
    server.handle_error = lambda *_: None
    in_thread(server.serve_forever)
    server.init(_slots(tasks))
    return server, environments(tasks, server.server_address[1])


def environments(tasks: Sequence[int], port: int) -> list[dict[str, str]]:
    """Returns the variables that Horovod's Gloo reads on each rank.

    The caller adds the server's address and the interface.
    """
    from horovod.runner.gloo_run import create_slot_env_vars

    settings = {
        PORT: str(port),
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
    }
    return [settings | create_slot_env_vars(slot) for slot in _slots(tasks)]


def _slots(tasks: Sequence[int]) -> list[Any]:
    from horovod.runner.common.util.hosts import HostInfo, get_host_assignments

    hosts = [HostInfo(f"host{number}", count) for number, count in enumerate(tasks)]
    return get_host_assignments(hosts, sum(tasks))


def _missing(wanted: int, error: ImportError) -> DistributedError:
    return DistributedError(
        f"{wanted} processes were asked for, but Horovod is not installed for this TensorFlow"
        f" ({error}); run `make setup`, or start one process"
    )


def check_own_name(environment: Mapping[str, str] = os.environ) -> None:
    """Checks that this host's own name leads to it from other hosts, if Gloo is used.

    Horovod 0.28.1 connects a job's process sets, including that of all ranks, by the address of
    `gethostname()`, whatever HOROVOD_GLOO_IFACE says. It crashes if there is no address, and other
    hosts wait in vain if it is the loopback's (Debian's 127.0.1.1).

    Raises:
        DistributedError: it does not lead there.
    """
    if environment.get("HOROVOD_CONTROLLER") != "gloo":
        return
    name = socket.gethostname()
    several = int(environment.get("HOROVOD_CROSS_SIZE", 1)) > 1
    several &= environment.get("HOROVOD_GLOO_IFACE") != "lo"  # one host under several names
    way_out = f"put a line with its address in the network and {name} into its /etc/hosts"
    try:
        found = str(socket.getaddrinfo(name, None)[0][4][0])
    except OSError as error:
        raise DistributedError(
            f"this host's own name, {name}, has no address ({error}): {way_out}"
        ) from error
    if several and ipaddress.ip_address(found.split("%")[0]).is_loopback:
        raise DistributedError(
            f"this host's own name, {name}, means {found} here, which the job's other hosts cannot"
            f" reach: {way_out}"
        )


# ---- Slurm ------------------------------------------------------------------------------------


# result of `slurm_place`, which must start its server only once
_step: dict[str, str] | None = None


def slurm_place(mpi: bool | None, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Returns the variables for Horovod's Gloo in this task of a Slurm step.

    Rank 0 starts the server.

    It does nothing outside a step with several tasks, or if another launcher has set the places.
    Variables that are already set (HOROVOD_GLOO_RENDEZVOUS_ADDR, …_PORT, HOROVOD_GLOO_IFACE) do not
    change.

    Args:
        mpi: whether Horovod can use MPI; if so, srun --mpi=pmix or pmi2 sets the places. None: not
            known yet, so nothing is done if MPI might.
        environment: the variables to read.

    Raises:
        DistributedError: rank 0 cannot be found, or Slurm distributed the tasks in another order.
    """
    global _step
    pmi = ("PMIX_RANK", "PMI_RANK") if mpi is not False else ()
    launchers = ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", *pmi)
    if any(name in environment for name in launchers):
        return {}
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) == 1:
        return {}
    if _step is None:
        _step = _join_step(environment)
    return _step


def _join_step(environment: Mapping[str, str]) -> dict[str, str]:
    rank, local_rank = (int(environment[f"SLURM_{name}"]) for name in ("PROCID", "LOCALID"))
    tasks = tasks_per_host(environment["SLURM_STEP_TASKS_PER_NODE"])
    first, last = ends_of_nodelist(environment["SLURM_STEP_NODELIST"])
    address = environment.get(ADDRESS, first)
    port = int(environment.get(PORT) or slurm_port(environment))
    mine = environments(tasks, port)[rank]
    if int(mine["HOROVOD_LOCAL_RANK"]) != local_rank:
        raise DistributedError(
            f"Slurm's task {rank} is number {local_rank} on its host, not"
            f" {mine['HOROVOD_LOCAL_RANK']}: start the tasks with srun --distribution=block"
        )
    mine["HOROVOD_GLOO_IFACE"] = environment.get("HOROVOD_GLOO_IFACE", "")
    if not mine["HOROVOD_GLOO_IFACE"]:
        # Rank 0's own name often refers to its loopback, which other hosts cannot reach.
        on_first = int(environment["SLURM_NODEID"]) == 0
        mine["HOROVOD_GLOO_IFACE"] = interface_towards(last if on_first else address)
    mine[ADDRESS] = _resolve(address)
    if rank == 0:
        serve(tasks, port)
    return mine


def tasks_per_host(text: str) -> list[int]:
    """Parses Slurm's "2(x3),1" to [2, 2, 2, 1]."""
    counts: list[int] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        counts += [int(count)] * int(times or 1)
    return counts


def ends_of_nodelist(text: str) -> tuple[str, str]:
    """Returns the first and the last host of Slurm's "gpu[003-006,9],login"."""
    parts = re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text)
    first = re.sub(r"\[(\d+)[^\]]*\]", r"\1", parts[0])
    return first, re.sub(r"\[(?:[^\]]*[,-])?(\d+)\]", r"\1", parts[-1])


def slurm_port(environment: Mapping[str, str]) -> int:
    """Returns a port that all tasks can compute, different for each job and step.

    It is below the range that systems give to clients.
    """
    job, step = (int(environment[f"SLURM_{name}_ID"]) for name in ("JOB", "STEP"))
    return 20000 + (job * 7 + step) % 12000


def interface_towards(host: str) -> str:
    """Returns the network interface that leads to a host, such as "eth0".

    Raises:
        DistributedError: the host's name has no address, or no interface leads there.
    """
    import psutil

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((_resolve(host), 9))  # sends nothing
        mine = probe.getsockname()[0]
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address == mine for address in addresses):
            return name
    raise DistributedError(f"no interface has the address {mine}; name one in HOROVOD_GLOO_IFACE")


def _resolve(host: str) -> str:
    try:
        return socket.gethostbyname(host)
    except OSError as error:
        raise DistributedError(
            f"the host {host} has no address here ({error}): name the first host's address in"
            " HOROVOD_GLOO_RENDEZVOUS_ADDR, and the network interface in HOROVOD_GLOO_IFACE"
        ) from error
