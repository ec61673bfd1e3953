"""Recommends a format after `--mode inference_benchmark`. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from convoy.runtime.benchmark.plan import KERAS


def recommendation(cells: Sequence[dict[str, Any]]) -> str:
    """Names the fastest format whose answers are close enough to the model's, by batch size.

    Args:
        cells: of a `Report`. `agreement` is the fraction of images with the Keras model's top-1
            class, if it was found to be within the format's bound; else None.

    Returns:
        Lines; "" if only one format was measured.
    """
    measured = [cell for cell in cells if not cell["note"]]
    if len({cell["format"] for cell in measured}) < 2:
        return ""
    judged = [cell for cell in measured if cell["agreement"] is not None]
    others = dict.fromkeys(_name(cell) for cell in measured if cell["agreement"] is None)
    lines = []
    if len({_name(cell) for cell in judged}) > 1:
        for batch in dict.fromkeys(cell["batch_size"] for cell in judged):
            at_batch = [cell for cell in judged if cell["batch_size"] == batch]
            best = max(at_batch, key=lambda cell: cell["throughput"])
            lines.append(
                f"fastest at batch {batch}: {_name(best)} (top-1 agreement {best['agreement']:.2%})"
            )
    if others:
        lines.append(
            f"not found to agree with the model, so not recommended: {', '.join(others)}"
            " (--mode export compares)"
        )
    return "\n".join(lines)


def _name(cell: dict[str, Any]) -> str:
    """Returns a row's name; that of exports is their format."""
    if cell["format"] != KERAS:
        return cell["format"]
    return f"{KERAS} {cell['precision']}{' with XLA' if cell['xla'] else ''}"
