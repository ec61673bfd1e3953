"""Writes weight files in the layout of other programs, with names and shapes only."""

import numpy as np

from convoy.model.arithmetic import weight_shapes
from convoy.model.weights.names import scheme_for, source_names


def write_timm(path, arch, *, classes=10, without=(), extra=(), dtype=np.int8, **options):
    """Writes the tensors of an `Arch`, all zeros, with timm's names and layouts.

    Args:
        path: the safetensors file.
        arch: the architecture.
        classes: number of classes of the head.
        without: tensors whose names contain one of these are left out.
        extra: names of additional tensors.
        dtype: dtype of all tensors.
        **options: passed on to `weight_shapes`.
    """
    from safetensors.numpy import save_file

    shapes = weight_shapes(arch, classes, **options)
    theirs = source_names(shapes, scheme_for("timm", arch.family))
    arrays = {theirs[k]: np.zeros(_torch(k, s), dtype) for k, s in shapes.items()}
    arrays = {k: v for k, v in arrays.items() if not any(part in k for part in without)}
    save_file(arrays | {name: np.zeros(2, dtype) for name in extra}, path)
    return path


def _torch(path, shape):
    if len(shape) == 4:
        h, w, i, o = shape
        return (i, o, h, w) if "dwconv" in path else (o, i, h, w)
    return shape[::-1]
