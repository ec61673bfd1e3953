"""Lists the ways to resize images, and up to which size. Imports no TensorFlow."""

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
# A larger frame is not computed as a whole: at 4 bytes per channel, this many pixels are 50 MB.
FRAME_PIXELS = 2**22
LONGEST_SIDE = 2**20  # limit of the native operation


def check_interpolation(name: str) -> str:
    """Returns `name`; raises ValueError with the known names if it is not one of them."""
    if name not in INTERPOLATIONS:
        raise ValueError(f"interpolation {name!r} is not one of {', '.join(INTERPOLATIONS)}.")
    return name
