"""Lists the ways to resize images. Imports no TensorFlow."""

from __future__ import annotations

# Kernels of tf.raw_ops.ScaleAndTranslate, and their radius in pixels.
KERNELS = {
    "bilinear": ("triangle", 1),
    "bicubic": ("keyscubic", 2),
    "lanczos3": ("lanczos3", 3),
    "lanczos5": ("lanczos5", 5),
    "gaussian": ("gaussian", 2),
    "mitchellcubic": ("mitchellcubic", 2),
}
INTERPOLATIONS = (*KERNELS, "nearest", "area")


def check_interpolation(name: str) -> str:
    """Returns `name`; raises ValueError with the known names if it is not one of them."""
    if name not in INTERPOLATIONS:
        raise ValueError(f"interpolation {name!r} is not one of {', '.join(INTERPOLATIONS)}.")
    return name
