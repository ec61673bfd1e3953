"""Converts between Keras variables and a checkpoint's NumPy arrays, by path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from convoy.runtime.run_folder.checkpoint import CheckpointError
from convoy.utils.optim.variables import to_numpy


def variables_to_arrays(variables: Any) -> dict[str, np.ndarray]:
    """Returns Keras variables as NumPy arrays by path.

    Raises:
        CheckpointError: two variables have the same path (two layers have the same name).
    """
    variables = list(variables)
    arrays = {v.path: to_numpy(v.value) for v in variables}
    if len(arrays) != len(variables):
        raise CheckpointError(
            "two variables of the model have the same path; give its layers different names"
        )
    return arrays


def assign(variables: Any, arrays: Mapping[str, np.ndarray], what: str) -> None:
    """Assigns arrays to the Keras variables with the same path and shape.

    Raises:
        CheckpointError: an array is missing or has another shape; then nothing is assigned.
    """
    variables = list(variables)
    for v in variables:
        if v.path not in arrays:
            raise CheckpointError(
                f"the checkpoint lacks {what} {v.path}; was it made with other settings?"
            )
        if tuple(arrays[v.path].shape) != tuple(v.shape):
            raise CheckpointError(
                f"{what} {v.path} has shape {tuple(arrays[v.path].shape)} in the checkpoint"
                f" and {tuple(v.shape)} here; was it made with other settings?"
            )
    for v in variables:
        v.assign(arrays[v.path])
