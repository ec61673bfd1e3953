"""Prints `--mode list` and `--mode summary`."""

from __future__ import annotations

import shutil
import sys
from typing import Any

from convoy.model.arithmetic import macs
from convoy.model.catalog import get_arch, list_archs
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.recipes import expected_top1
from convoy.utils.tables import columns, table_console


def list_architectures(pattern: str | None = None) -> dict[str, Any]:
    """Prints architectures with their size, and their cost at their resolution.

    Loads no TensorFlow.
    """
    from rich.table import Table

    names = ("architecture", "px", "M params", "trainable", "G MACs", "top-1 %", "expected by")
    table = Table(*names, box=None, pad_edge=False)
    for column in table.columns[1:-1]:
        column.justify = "right"
    ready = [arch for name in list_archs(pattern) if (arch := get_arch(name)).available]
    for arch in ready:
        counts = arch.params_1000 / 1e6, arch.trainable_1000 / 1e6, macs(arch) / 1e9
        expected, source = expected_top1(arch.name) or ("", "")
        accuracy = f"{expected:.1f}" if expected else ""
        sizes = (str(arch.resolution), *(f"{count:.2f}" for count in counts))
        table.add_row(arch.name, *sizes, accuracy, source)
    table_console().print(table)
    return {"architectures": len(ready)}


def summarise_model(config: Config) -> dict[str, Any]:
    """Prints the layers of `--arch`, its parameters and multiply-adds."""
    from convoy.model.summary import flops
    from convoy.runtime.builders.models import DEFAULT_CLASSES, build_training_model

    model = build_training_model(config, config.num_classes or DEFAULT_CLASSES)
    width = max(60, shutil.get_terminal_size().columns if sys.stdout.isatty() else 100)
    with columns(width):
        model.summary(line_length=width, show_trainable=False)
    macs, parameters = flops(model), model.count_params()
    print(
        f"{config.arch}: {parameters:,} parameters, {macs / 1e9:.3f} G multiply-adds at"
        f" {model.input_shape[1]} px"
    )
    return {"parameters": parameters, "multiply_adds": macs}
