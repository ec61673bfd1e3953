"""Wraps Horovod; no other module imports it.

Without a multi-process launch this module is rank 0 of 1 and never loads Horovod. Values that go
through Horovod are raw tensors (`variable.value` of Keras variables), because its Keras wrappers
fail on Keras 3.
"""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from convoy.utils.distributed import gathering, horovod_build
from convoy.utils.distributed.launched import (
    WATCHDOG_SECONDS,
    begin,
    elastic,
    launch_variable,
    launched_processes,
    meet,
    no_watchdog,
)
from convoy.utils.distributed.slurm_and_nproc import DistributedError, check_own_name, slurm_place
from convoy.utils.watchdog import both_sides, watchdog

T = TypeVar("T")

# Without GPUs, Horovod's threads run on the cores that train. At each cycle (in milliseconds) they
# ask all ranks what to exchange: at Horovod's own 1 ms this took 17 % of a core. With
# scripts/horovod/1-idle-cycle-time.patch they sleep for at most the second value while there is
# nothing to do, and wake at once.
_CYCLES_ON_CPUS = {"HOROVOD_CYCLE_TIME": "10", "HOROVOD_IDLE_CYCLE_TIME": "100"}

_hvd: Any = None


def init(
    seconds: float = WATCHDOG_SECONDS,
    asked: Callable[[], str] = lambda: "",
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Joins the other processes, if the launcher started several.

    Call once, before the first tensor.

    Args:
        seconds: limit of the watchdog (`utils.watchdog.watchdog`), which starts here; 0: no
            watchdog. An elastic job has none: there the launcher replaces ranks, and the others
            continue.
        asked: returns the name of the signal that asks this rank to stop; "" for none.
        say: prints a line.

    Raises:
        DistributedError: several processes were launched and Horovod is missing or cannot start.
        StoppedEarly: a signal came before all ranks had started.
    """
    global _hvd
    wanted = launched_processes()
    if _hvd is not None or (wanted == 1 and not elastic()):
        return
    begin()
    watchdog.limit(seconds)
    watchdog.rest("loading Horovod")
    hvd = _horovod(wanted)
    if elastic():
        _gather()
        wanted = launched_processes()
    else:
        begin(mpi=hvd.mpi_built())
        watchdog.limit(seconds)
        meet(wanted, seconds, asked, say)
        os.environ.update(slurm_place(hvd.mpi_built()))
    check_own_name()
    if not hvd.nccl_built():
        for name, milliseconds in _CYCLES_ON_CPUS.items():
            os.environ.setdefault(name, milliseconds)
    watchdog.rest("joining the other ranks")
    hvd.init()
    _check_size(hvd.size(), wanted)
    _hvd = hvd


def _horovod(wanted: int) -> Any:
    """Loads Horovod for the number of processes that were launched."""
    try:
        return horovod_build.load()
    except horovod_build.HorovodError as error:
        raise DistributedError(
            f"{wanted} processes were launched, but {error}, or start one process"
        ) from error


def _check_size(found: int, wanted: int) -> None:
    if found != wanted:
        raise DistributedError(
            f"{wanted} processes were launched, as {launch_variable()} says, but Horovod sees"
            f" {found}: the launcher and Horovod's build do not match (mpirun needs Horovod"
            " built with MPI; horovodrun --gloo always works), or the variable is another job's:"
            " unset it then"
        )


def watch(seconds: float, say: Callable[[str], None]) -> None:
    """Starts the watchdog if `init` could not: under MPI, ranks find each other through Horovod.

    Call it on every rank, after the devices are set up, because it makes tensors.

    Args:
        seconds: see `init`.
        say: see `init`.
    """
    if not _hvd or not seconds or elastic() or watchdog.rank() is not None:
        return

    def begin_watching(address: str) -> str:
        return watchdog.start(
            rank(),
            size(),
            seconds,
            one_host=local_size() == size(),
            start_seconds=math.inf,
            put=lambda key, text: None,
            get=lambda key: address if key == both_sides.ADDRESS else None,
        )

    address = broadcast_object(begin_watching("") if rank() == 0 else "")
    if rank():
        begin_watching(address)
    if troubles := [text for text in all_gather_object(watchdog.search()) if text]:
        watchdog.stop()
        if rank() == 0:
            say(no_watchdog(troubles[0]))
    else:
        watchdog.meet(lambda: "", lambda missing: None)


def rank() -> int:
    """Returns this process's number, from 0."""
    return _hvd.rank() if _hvd else 0


def size() -> int:
    """Returns the number of processes."""
    return _hvd.size() if _hvd else 1


def local_rank() -> int:
    """Returns this process's number on its host."""
    return _hvd.local_rank() if _hvd else 0


def local_size() -> int:
    """Returns the number of this job's processes on this host."""
    return _hvd.local_size() if _hvd else 1


def shutdown() -> None:
    """Leaves the other processes. Does nothing if there is only one process."""
    global _hvd
    if _hvd:
        _hvd.shutdown()
        _hvd = None


def rejoin() -> None:
    """In an elastic job, leaves the old group of processes and joins the new one.

    Raises:
        utils.distributed.gathering.Removed: there is no place for this process any more.
    """
    shutdown()
    _gather(again=True)
    init()


def end_elastic_job(why: str) -> None:
    """Ends an elastic job before this process ends with an error that concerns all.

    The others find the text when they miss this process. A process that ends without a text,
    because its machine or its GPU failed, counts only as lost.
    """
    if elastic() and size() > 1:
        with suppress(OSError):
            gathering.tell(f"rank {rank()}: {why}")


def _gather(again: bool = False) -> None:
    try:
        gathering.gather(again)
    except OSError as error:
        raise DistributedError(f"the launcher, horovodrun, does not answer: {error}") from error


@dataclass(frozen=True)
class Exchange:
    """How processes exchange gradients.

    Attributes:
        fp16: send gradients as float16: half the bytes, three decimal digits.
        predivide: divide by this before the sum and by size/predivide after it, so that a float16
            sum over many processes cannot overflow; 1 divides only after the sum.
        groups: number of separately negotiated groups; 1 waits for all gradients and sends them
            fused.
        adasum: combine with Adasum (Maleki et al., arXiv:2006.02924) instead of averaging.
    """

    fp16: bool = False
    predivide: float = 1.0
    groups: int = 1
    adasum: bool = False


def reduce_mean(
    gradients: Sequence[Any], others: Sequence[Any] = (), exchange: Exchange | None = None
) -> tuple[list[Any], list[Any]]:
    """Averages each tensor over all processes. For use inside a `tf.function`.

    Args:
        gradients: exchanged as `exchange` says.
        others: small tensors sent along, always in full precision and always averaged.
        exchange: how to send the gradients; None: as they are, averaged.

    Raises:
        DistributedError: Adasum was requested, but this Horovod does not support it.
    """
    if not _hvd:
        return list(gradients), list(others)
    exchange = exchange or Exchange()
    if exchange == Exchange():
        means = _hvd.grouped_allreduce([*gradients, *others], op=_hvd.Average, name="gradients")
        return means[: len(gradients)], means[len(gradients) :]
    options: dict[str, Any] = {"op": _hvd.Average}
    if exchange.adasum:
        check_adasum()
        options["op"] = _hvd.Adasum
    elif exchange.predivide != 1.0:
        options = {
            "op": _hvd.Sum,
            "prescale_factor": 1.0 / exchange.predivide,
            "postscale_factor": exchange.predivide / size(),
        }
    if exchange.fp16:
        options["compression"] = _hvd.Compression.fp16
    length = math.ceil(len(gradients) / exchange.groups)
    reduced: list[Any] = []
    for start in range(0, len(gradients), length):
        part = list(gradients[start : start + length])
        if exchange.adasum:  # Horovod has no grouped Adasum
            reduced += [
                _hvd.allreduce(g, name=f"gradient_{start + i}", **options)
                for i, g in enumerate(part)
            ]
        else:
            reduced += _hvd.grouped_allreduce(part, name=f"gradients_{start}", **options)
    if not others:
        return reduced, []
    return reduced, _hvd.grouped_allreduce(list(others), op=_hvd.Average, name="others")


def check_adasum() -> None:
    """Raises DistributedError unless this Horovod supports Adasum, which Gloo does not."""
    if _hvd and not (_hvd.mpi_enabled() or _hvd.nccl_built()):
        raise DistributedError(
            "--adasum needs Horovod running over MPI or NCCL, and this one runs over Gloo; leave"
            " --adasum out, or build Horovod with MPI (`make setup` does where mpicc is installed)"
        )


def mean_over_ranks(tensor: Any, name: str) -> Any:
    """Averages one tensor over all processes, for use inside a `tf.function`.

    `name` must be the same on every rank, and no other exchange with that name may be running.
    """
    return _hvd.allreduce(tensor, op=_hvd.Average, name=name) if _hvd else tensor


def all_sum(values: np.ndarray) -> np.ndarray:
    """Sums a float64 or int64 array over all processes."""
    if not _hvd:
        return np.asarray(values)
    return _hvd.allreduce(np.asarray(values), op=_hvd.Sum, name="all_sum").numpy()


def all_gather(values: np.ndarray) -> np.ndarray:
    """Joins the arrays of all processes along their first axis, in rank order."""
    if not _hvd:
        return np.asarray(values)
    return _hvd.allgather(np.asarray(values), name="all_gather").numpy()


def all_gather_object(value: T) -> list[T]:
    """Returns the picklable values of all processes, in rank order."""
    if not _hvd:
        return [value]
    payload = np.frombuffer(pickle.dumps(value), dtype=np.uint8)
    lengths = all_gather(np.array([payload.size], np.int64))
    ends = np.cumsum(lengths)
    joined = all_gather(payload)
    return [
        pickle.loads(joined[end - length : end].tobytes())
        for end, length in zip(ends, lengths, strict=True)
    ]


def average_variables(variables: Sequence[Any]) -> None:
    """Replaces each Keras variable by its mean over processes (batch norm's running statistics)."""
    if not _hvd or not variables:
        return
    # A Keras variable has its tensor in `value`; a tf.Variable (the EMA's) returns it from
    # `value()`.
    values = [v.value() if callable(v.value) else v.value for v in variables]
    means = _hvd.grouped_allreduce(values, op=_hvd.Average, name="averages")
    for variable, mean in zip(variables, means, strict=True):
        variable.assign(mean)


def broadcast_variables(variables: Sequence[Any]) -> None:
    """Gives every process rank 0's values of the Keras variables."""
    if not _hvd:
        return
    for number, variable in enumerate(variables):
        variable.assign(_hvd.broadcast(variable.value, root_rank=0, name=f"broadcast_{number}"))


def broadcast_object(value: T) -> T:
    """Returns rank 0's picklable value on every process; unpickles only our own processes' bytes.

    It unpickles only our own processes' bytes.
    """
    if not _hvd:
        return value
    payload = (
        np.frombuffer(pickle.dumps(value), dtype=np.uint8) if rank() == 0 else np.zeros(0, np.uint8)
    )
    length = int(all_sum(np.array(payload.size, dtype=np.int64)))
    if rank() != 0:
        payload = np.zeros(length, dtype=np.uint8)
    return pickle.loads(
        _hvd.broadcast(payload, root_rank=0, name="broadcast_object").numpy().tobytes()
    )


class Elsewhere(RuntimeError):
    """Represents, on other ranks, an error of rank 0 that cannot be sent: its kind and text."""


def on_rank0(action: Callable[[], T]) -> T:
    """Runs `action` on rank 0 and returns its result on every process.

    Raises:
        what `action` raises, or `Elsewhere` on ranks where that cannot be rebuilt. No rank is left
            waiting, whatever the error.
    """
    if not _hvd:
        return action()
    results: list[T] = []
    failure: Exception | None = None
    text, content = "", b""
    if rank() == 0:
        try:
            results.append(action())
            content = pickle.dumps(results[0])
        except Exception as error:  # noqa: BLE001 — raised on every rank just below
            failure, text = error, f"{type(error).__name__}: {error}"
            with suppress(Exception):
                content = pickle.dumps(error)
    text, content = broadcast_object((text, content))
    if failure is not None:
        raise failure
    if rank() == 0:
        return results[0]
    if not text:
        return pickle.loads(content)
    told: Any = Elsewhere(text)
    # Exception classes that take other arguments than their text, or that hold unpicklable values.
    with suppress(Exception):
        told = pickle.loads(content)
        told.of_rank0 = True
    raise told


def is_told(error: BaseException) -> bool:
    """Returns whether rank 0 raised this error first, and reports it."""
    return isinstance(error, Elsewhere) or getattr(error, "of_rank0", False)
