"""Finds `--train_batch_size auto`, the largest batch that fits into memory.

It trains with some batches in a separate process (`batch_trial.py`), so that running out of memory
does not end the run. No TensorFlow.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import convoy
from convoy.dataloader.errors import DataError
from convoy.runtime.data.open_split import open_split
from convoy.runtime.fitted.rules import STEPS_PER_EPOCH, auto_batches
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flags import AUTO
from convoy.utils import strict_json
from convoy.utils.distributed import ranks
from convoy.utils.errors import ConfigError, UserError
from convoy.utils.machine.gpus import visible_gpus
from convoy.utils.machine.resources import free_memory
from convoy.utils.optional import known
from convoy.utils.watchdog import watchdog

SHARE = 0.8
"""Fraction of the free memory that training may take: loaders and checkpoints need some too."""
_FIRST = 8
_LAUNCHERS = ("HOROVOD_", "OMPI_", "PMI", "SLURM_", "MPI_", "CONVOY_")
_GIB = 2**30
Result = TypeVar("Result")


class TrialError(UserError, RuntimeError):
    """A trial of training failed."""


@dataclass(frozen=True)
class Found:
    """The result of the search.

    Attributes:
        batch: images per process and pass.
        why: why the batch is not larger, for people.
    """

    batch: int
    why: str

    def line(self) -> str:
        """Returns the line for people."""
        return f"convoy: --train_batch_size {AUTO} is {self.batch}: {self.why}"


def agree(config: Config) -> Found:
    """Returns the smallest result of a job's hosts; one process per host searches.

    All ranks must call it.

    Raises:
        TrialError: not one image fits, or training failed for another reason.
        ConfigError: there are no data.
    """
    watchdog.rest("looking for the largest batch that fits")
    found = on_each_host(lambda: look(config, ranks.size(), ranks.local_size()))
    return min(found, key=lambda one: one.batch)


def on_each_host(measure: Callable[[], Result]) -> list[Result]:
    """Returns the results of the hosts of a job; one process of each measures.

    All ranks must call it.

    Raises:
        UserError: a host's.
    """
    found, problem = None, None
    if ranks.local_rank() == 0:
        try:
            found = measure()
        except UserError as error:
            problem = error
    told = ranks.all_gather_object((found, problem))
    if problems := [error for _, error in told if error]:
        raise problems[0]
    return [one for one, _ in told if one is not None]


def look(config: Config, processes: int, on_host: int) -> Found:
    """Finds the largest batch for one process of this host.

    Args:
        config: the flags.
        processes: number of processes that train together.
        on_host: number of them that share the host's memory.

    Raises:
        TrialError, ConfigError: see `agree`.
    """
    sizes = candidates(config, processes)
    room = memory_room(on_host)
    with Trials(config) as trials:
        on_gpu = math.isinf(room)
        batch, more = _on_gpu(sizes, trials.peak) if on_gpu else _on_host(sizes, trials.peak, room)
    if batch is None:
        raise TrialError(
            f"--train_batch_size {AUTO}: no batch fits into memory; lower"
            " --image_size, or choose a smaller --arch"
        )
    return Found(batch, more or _bound(config))


def memory_room(on_host: int) -> float:
    """Returns the bytes that each of a host's processes may take; infinite on a GPU.

    A GPU refuses by itself what does not fit.
    """
    return math.inf if visible_gpus() > 0 else SHARE * free_memory() / on_host


def candidates(config: Config, processes: int) -> list[int]:
    """Returns the batches to choose from, in rising order.

    Raises:
        ConfigError: there are no data.
    """
    if total := config.optimizer_batch_size:  # the images of a pass must divide it
        each = max(1, total // processes)
        return [n for n in range(1, each + 1) if each % n == 0 and (n % 8 == 0 or n < 8)]
    try:
        source = open_split(config, "train")
    except DataError as error:
        raise ConfigError(str(error)) from error
    return auto_batches(source.num_examples, processes * (config.grad_accum_steps or 1))


def _bound(config: Config) -> str:
    if config.optimizer_batch_size:
        return f"--optimizer_batch_size {config.optimizer_batch_size} needs no more"
    return f"more would leave an epoch fewer than {STEPS_PER_EPOCH} updates"


def _on_gpu(sizes: list[int], peak: Callable[[int], int | None]) -> tuple[int | None, str]:
    """Searches on a GPU, which rejects what does not fit, so it tries the largest first.

    Also returns why not more, if memory is the reason.
    """
    for size, larger in zip(reversed(sizes), [0, *reversed(sizes)], strict=False):
        if peak(size) is not None:
            return size, f"{larger} do not fit into the GPU's memory" if larger else ""
    return None, ""


def _on_host(
    sizes: list[int], peak: Callable[[int], int | None], room: float
) -> tuple[int | None, str]:
    """Searches on a host: small batches first predict the memory of larger ones.

    A host's kernel kills a process that takes too much.
    """
    seen: dict[int, float] = {}

    def fits(size: int) -> bool:
        if size not in seen:
            taken = peak(size)
            seen[size] = float("inf") if taken is None else float(taken)
        return seen[size] <= room

    place = max(i for i, size in enumerate(sizes) if size <= _FIRST)
    if fits(sizes[place]) and place + 1 < len(sizes) and fits(sizes[place + 1]):
        small, large = sizes[place], sizes[place + 1]
        each = max(0.0, seen[large] - seen[small]) / (large - small)
        foreseen = {size: seen[large] + each * (size - large) for size in sizes[place + 2 :]}
        place += 1 + sum(taken <= room for taken in foreseen.values())
    else:
        foreseen = {}
    while place >= 0 and not fits(sizes[place]):
        place -= 1
    if place < 0:
        return None, ""
    if place + 1 == len(sizes):
        return sizes[place], ""
    larger = sizes[place + 1]
    taken = seen.get(larger, foreseen.get(larger, float("inf")))
    takes = f"take about {taken / _GIB:.1f} GiB" if taken < float("inf") else "take too much"
    return sizes[place], f"{larger} images {takes}, and {room / _GIB:.1f} GiB may be taken"


class Trials:
    """Trains with one batch after another, in a process that may die of it and is then restarted.

    Args:
        config: config of the run.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._folder = tempfile.TemporaryDirectory(prefix="convoy-batch-")
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._folder.cleanup()

    def peak(self, batch: int, recompute: str | int | None = None) -> int | None:
        """Returns the peak memory of training in bytes; None: more than available.

        Args:
            batch: images per process and pass.
            recompute: value of `--recompute`; None: the run's. A process keeps the memory that it
                once had, so this starts another one.

        Raises:
            TrialError: training fails for another reason.
        """
        if recompute is not None:
            self._end()
        child = self._child = self._child or self._start()
        changes = {"train_batch_size": batch} | ({"recompute": recompute} if recompute else {})
        answer = ""
        with suppress(BrokenPipeError):
            questions, answers = known(child.stdin), known(child.stdout)
            questions.write(f"{strict_json.dumps(changes)}\n")
            questions.flush()
            answer = answers.readline()
        if not answer:
            self._end()
            return None  # killed by the kernel, or by a library that ran out of memory
        said = json.loads(answer)
        if error := said.get("error"):
            flag = "--train_batch_size" if recompute is None else "--recompute"
            raise TrialError(
                f"{flag} {AUTO}: a trial with a batch of {batch} failed: {error}\n"
                f"Give {flag} a value to train without trials."
            )
        return said["peak"]

    def _start(self) -> subprocess.Popen[str]:
        settings = Path(self._folder.name) / "config.yaml"
        settings.write_text(self._config.to_yaml(), encoding="utf-8")
        own = {k: v for k, v in os.environ.items() if not k.startswith(_LAUNCHERS)}
        root = str(Path(convoy.__file__).resolve().parents[1])
        own["PYTHONPATH"] = os.pathsep.join(filter(None, [root, own.get("PYTHONPATH")]))
        return subprocess.Popen(
            [sys.executable, "-m", "convoy.runtime.batch_trial", str(settings)],
            env=own,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # we handle a terminal's Ctrl-C
        )

    def _end(self) -> None:
        if self._child is None:
            return
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            with suppress(OSError):
                known(stream).close()
        self._child = None
