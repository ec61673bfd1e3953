"""Recommends a format after `--mode inference_benchmark`. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from convoy.runtime.benchmark.plan import KERAS


def recommendation(cells: Sequence[dict[str, Any]]) -> str:
    """Names the fastest format whose answers are the model's, at each batch size.

    Args:
        cells: of a `Report`. `agrees` says whether the answers are the Keras model's within the
            format's bound; None: not compared.

    Returns:
        Lines; "" if only one format was measured.
    """
    measured = [cell for cell in cells if not cell["note"]]
    if len({cell["format"] for cell in measured}) < 2:
        return ""
    judged = [cell for cell in measured if cell["agrees"]]
    open_ones = dict.fromkeys(_name(cell) for cell in measured if not cell["agrees"])
    best: dict[str, list[int]] = {}
    for batch in dict.fromkeys(cell["batch_size"] for cell in judged):
        at_batch = [cell for cell in judged if cell["batch_size"] == batch]
        fastest = max(at_batch, key=lambda cell: cell["throughput"])
        best.setdefault(_name(fastest), []).append(batch)
    lines = [
        f"fastest here with the model's answers: {name}, at batch {', '.join(map(str, batches))}"
        for name, batches in best.items()
        if len({_name(cell) for cell in judged}) > 1
    ]
    if open_ones:
        lines.append(
            f"no comparison with the model's answers, so not recommended: {', '.join(open_ones)}"
            " (--mode export compares)"
        )
    return "\n".join(lines)


def _name(cell: dict[str, Any]) -> str:
    """Returns a row's name; that of exports is their format."""
    if cell["format"] != KERAS:
        return cell["format"]
    return f"{KERAS} {cell['precision']}{' with XLA' if cell['xla'] else ''}"
