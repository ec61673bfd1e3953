"""Turns pictures upright in NumPy, as EXIF's orientation says. Imports no TensorFlow.

Cameras store the sensor's picture, and separately how they were held, as a number from 1 to 8.
From 5 on, rows and columns are swapped; before that, rows are reversed in 3, 4, 6 and 7, columns
in 2, 3, 7 and 8.
"""

from __future__ import annotations

import numpy as np

ROWS, COLUMNS = ((3, 4, 6, 7), (2, 3, 7, 8))


def turned(image: np.ndarray, number: int) -> np.ndarray:
    """Turns uint8 `(H, W, 3)` as an orientation says."""
    image = image[::-1] if number in ROWS else image
    image = image[:, ::-1] if number in COLUMNS else image
    return np.ascontiguousarray(image.transpose(1, 0, 2) if number >= 5 else image)


def stored_window(
    window: tuple[int, int, int, int], shape: tuple[int, int], number: int
) -> tuple[int, int, int, int]:
    """Maps a part of the turned picture to the stored picture.

    Args:
        window: y, x, height and width in the turned picture.
        shape: height and width of the stored picture.
        number: the orientation.
    """
    y, x, height, width = window
    if number >= 5:
        y, x, height, width = x, y, width, height
    y = shape[0] - y - height if number in ROWS else y
    x = shape[1] - x - width if number in COLUMNS else x
    return y, x, height, width
