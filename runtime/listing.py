"""`--mode list` and `--mode summary`."""

from __future__ import annotations

from typing import Any

from model.catalog import get_arch, list_archs
from runtime.config import Config


def list_architectures() -> dict[str, Any]:
    """Prints every architecture with its resolution and parameters. Loads no TensorFlow."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "architecture", "family", "pixels", "parameters", "status", box=None, pad_edge=False
    )
    for column in (2, 3):
        table.columns[column].justify = "right"
    names = list_archs()
    for name in names:
        arch = get_arch(name)
        status = "ready" if arch.available else "not built yet"
        table.add_row(name, arch.family, str(arch.resolution), f"{arch.params_1000:,}", status)
    Console().print(table)
    return {"architectures": len(names)}


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
