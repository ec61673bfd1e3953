"""Calls the C++ of `native/`, if it is built: the same bytes as in NumPy, in a fifth of the time.

`scripts/build_native.sh` builds it in a checkout. An installed package builds it before it labels
many images (`prepare`), if there is a compiler.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from convoy.utils import native

FOLDER = Path(__file__).parent / "native"
_WORTH_BUILDING = 1000
"""Number of images that take longer in NumPy than the compiler does."""


def prepare(images: int) -> None:
    """Builds the library, if this is worth it for a number of images and possible."""
    path = native.library_path(FOLDER)
    if images >= _WORTH_BUILDING and not path.exists():
        from convoy.utils.native.compile import build_on_first_use

        build_on_first_use(path)
        _loaded.cache_clear()


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray | None:
    """Resizes uint8 `(H, W, 3)` bilinearly to `(height, width, 3)`; None without the library."""
    library = _loaded()
    if library is None:
        return None
    result = np.empty((height, width, 3), np.uint8)
    return _called(library.convoy_resize, image, (height, width), result)


def resize_cubic(
    image: np.ndarray, frame: tuple[int, int], start: tuple[int, int], size: int
) -> np.ndarray | None:
    """Returns the square of `size` at `start` of an image resized to `frame`, bicubically.

    It is uint8 `(size, size, 3)`; None without the library.
    """
    library = _loaded()
    if library is None:
        return None
    result = np.empty((size, size, 3), np.uint8)
    return _called(library.convoy_resize_cubic, image, (*frame, *start, size), result)


def _called(
    function: Callable[..., bytes | None],
    image: np.ndarray,
    numbers: tuple[int, ...],
    result: np.ndarray,
) -> np.ndarray:
    """Calls a function for uint8 `(H, W, 3)`, and returns the result that it fills."""
    image = np.ascontiguousarray(image)
    error = function(image.ctypes.data, *image.shape[:2], *numbers, result.ctypes.data)
    if error:
        raise ValueError(error.decode())
    return result


@cache
def _loaded() -> ctypes.CDLL | None:
    path = native.library_path(FOLDER)
    try:
        library = ctypes.CDLL(str(path)) if path.exists() else None
    except OSError:  # built on another kind of machine
        return None
    if library is not None:
        place, number = ctypes.c_void_p, ctypes.c_int64
        for function, numbers in ((library.convoy_resize, 4), (library.convoy_resize_cubic, 7)):
            function.argtypes = [place, *[number] * numbers, place]
            function.restype = ctypes.c_char_p
    return library
