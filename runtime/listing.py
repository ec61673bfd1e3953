"""`--mode list` and `--mode summary`."""

from __future__ import annotations

from typing import Any

from model.catalog import get_arch, list_archs, macs
from runtime.config import Config


def list_architectures() -> dict[str, Any]:
    """Prints every architecture, its size and cost at its resolution. Loads no TensorFlow."""
    from rich.console import Console
    from rich.table import Table

    names = ("architecture", "family", "pixels", "parameters", "trainable", "G mult-adds")
    table = Table(*names, box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    ready = [arch for name in list_archs() if (arch := get_arch(name)).available]
    for arch in ready:
        counts = f"{arch.params_1000:,}", f"{arch.trainable_1000:,}", f"{macs(arch) / 1e9:.2f}"
        table.add_row(arch.name, arch.family, str(arch.resolution), *counts)
    Console().print(table)
    return {"architectures": len(ready)}


def summarise_model(config: Config) -> dict[str, Any]:
    """Prints the layers of `--arch`, its parameters and multiply-adds."""
    from model.summary import flops
    from runtime.build import DEFAULT_CLASSES, build_training_model

    model = build_training_model(config, config.num_classes or DEFAULT_CLASSES)
    model.summary(line_length=100, show_trainable=False)
    macs, parameters = flops(model), model.count_params()
    print(
        f"{config.arch}: {parameters:,} parameters, {macs / 1e9:.3f} G multiply-adds at"
        f" {model.input_shape[1]} px"
    )
    return {"parameters": parameters, "multiply_adds": macs}
