"""Pillow's filters, for `images.pillow_resizing` and `plain.pillow_resizing`. Imports neither."""

from __future__ import annotations

from typing import Any

BITS = 22
"""Bits of a pixel's weight after the point."""
RADIUS = {"bilinear": 1.0, "bicubic": 2.0}


def bicubic(distance: Any) -> tuple[Any, Any]:
    """Returns a pixel's weight if its distance is below 1, and if it is from 1 to 2.

    Args:
        distance: float64, of NumPy or TensorFlow; so are the weights.
    """
    near = (1.5 * distance - 2.5) * distance * distance + 1.0
    far = (((distance - 5.0) * distance + 8.0) * distance - 4.0) * -0.5
    return near, far
