"""Counts an architecture's parameters from the shapes of its weights."""

import math

from convoy.model.arithmetic import weight_shapes


def parameter_count(arch, num_classes=1000, *, trainable=False):
    """Counts parameters, with moving statistics unless `trainable`."""
    shapes = weight_shapes(arch, num_classes)
    return sum(math.prod(s) for path, s in shapes.items() if not (trainable and "/moving_" in path))
