"""Prints `--mode summary --memory`: what a training step needs memory for."""

from __future__ import annotations

from typing import Any

import keras

from convoy.model.step_memory import Moment
from convoy.model.weights.load import freeze_backbone
from convoy.runtime.builders.models import DEFAULT_CLASSES, build_training_model
from convoy.runtime.builders.precision import precision
from convoy.runtime.fitted.auto_batch import SHARE
from convoy.runtime.fitted.enough_memory import available_memory
from convoy.runtime.fitted.foreseen_memory import UPDATE, Foreseen, Foresight, bytes_of_a_number
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flags import AUTO
from convoy.runtime.settings.images import train_image_size
from convoy.utils.machine import device
from convoy.utils.tables import table_console

_GIB = 2**30
_VALUES: tuple[str | int, ...] = ("none", "norms", "blocks")


def show_memory(config: Config) -> dict[str, Any]:
    """Prints the memory of a training step on this CPU and on a GPU, and which batches fit here.

    Returns:
        `memory`: bytes on this CPU; `memory_on_gpu`; `largest_batch`, which fits into the free
        memory here.
    """
    policies = precision(config).policy, device.precision(config.use_amp, config.dtype, gpu=True)
    if device.has_gpu():
        policies = device.precision(config.use_amp, config.dtype, gpu=False), policies[1]
    with keras.device("cpu:0"):
        model = build_training_model(config, config.num_classes or DEFAULT_CLASSES)
    if config.freeze_backbone:
        freeze_backbone(model, config.arch)
    here, there = (
        Foresight(config, model, bytes_of_a_number(policy), gpu)
        for policy, gpu in zip(policies, (False, True), strict=True)
    )
    free = available_memory(1)
    values = _VALUES if config.recompute in (*_VALUES, AUTO) else (*_VALUES, config.recompute)
    largest = {how: here.largest_batch(how, SHARE * free) for how in values}
    given = config.train_batch_size
    how: str | int = config.recompute
    if how == AUTO:
        batch = largest["norms"] if given == AUTO else int(given)
        how = next((one for one in _VALUES if largest[one] >= batch), "blocks")
    batch = max(1, largest[how]) if given == AUTO else int(given)
    print(
        f"Memory of a training step: {config.arch}, {train_image_size(config)} px, batch {batch},"
        f" {config.optimizer}, --recompute {how}; foreseen, not measured (docs/memory.md)\n"
    )
    shown = here.peak(batch, how), there.peak(batch, how)
    _print_parts(shown, policies)
    print()
    _print_values(here, there, batch, largest)
    print(
        f"\n{free / _GIB:.1f} GiB are free here, of which a batch may take {SHARE:.0%}. On a GPU,"
        " CUDA and cuDNN's\nworkspaces come on top, and the result was not compared with a GPU."
    )
    return {
        "memory": round(shown[0].total),
        "memory_on_gpu": round(shown[1].total),
        "largest_batch": largest[how],
    }


def _print_parts(shown: tuple[Foreseen, Foreseen], policies: tuple[str, str]) -> None:
    from rich.table import Table

    names = (policy.removeprefix("mixed_") for policy in policies)
    table = Table("GiB", *map(" ".join, zip(("CPU,", "GPU,"), names, strict=True)), box=None)
    table.pad_edge = False
    for column in table.columns[1:]:
        column.justify = "right"
    rows = [one.parts() for one in shown]
    for name in rows[0]:
        table.add_row(name, *(_gib(row[name]) for row in rows))
    table.add_row("total", *(f"{one.total / _GIB:.2f}" for one in shown))
    table_console().print(table)
    at_here, at_there = (_at(one.moment) for one in shown)
    print(f"\nMost is taken in {at_here} on the CPU, and in {at_there} on a GPU.")


def _at(moment: Moment) -> str:
    if moment.at == UPDATE:
        return UPDATE
    return f"{moment.at}'s {'gradient' if moment.backward else 'forward pass'}"


def _gib(taken: float) -> str:
    return f"{taken / _GIB:.2f}" if taken else "-"


def _print_values(
    here: Foresight, there: Foresight, batch: int, largest: dict[str | int, int]
) -> None:
    from rich.table import Table

    names = ("--recompute", "CPU, GiB", "largest batch here", "GPU, GiB")
    table = Table(*names, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for how, most in largest.items():
        totals = (f"{one.peak(batch, how).total / _GIB:.2f}" for one in (here, there))
        on_cpu, on_gpu = totals
        table.add_row(str(how), on_cpu, str(most), on_gpu)
    table_console().print(table)
