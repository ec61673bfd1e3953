"""Loads C++ versions of the slow parts of the input pipeline, if they have been built.

`load` returns TensorFlow's module with these operations, or None. Without them the callers,
`dataloader.augment.augmenter` and `dataloader.images.crops`, use TensorFlow's own operations, which
give the same bytes but take longer. `scripts/build_native.sh` builds the library; `make setup`
calls it. Importing this module does not import TensorFlow.

The module's functions, each for one image on the CPU (see `kernels.h`):

    convoy_augment(image, ops, arguments, centres, names): uint8 (H, W, 3); int32 (steps,) indices
        into `names`; float64 (steps,); float32 (steps, 2).
    convoy_resize(image, size, flip): uint8 (H, W, 3); int32 (2,); bool.
    convoy_crop_window(shape, areas, stretch, places, limits): int32 (2,); float32 (attempts,),
        (2, attempts), (2, attempts), (2,).
    convoy_orientation(encoded): string; int32, see `dataloader.images.orientation`.
    convoy_upright(image, orientation): uint8 (H, W, 3); int32.
    convoy_stored_window(window, shape, orientation): int32 (4,), (2,) and scalar.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
from pathlib import Path

from convoy.utils import native

FOLDER = Path(__file__).parent
AUGMENT_OPS = frozenset(
    {
        *("Identity", "AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize"),
        *("Color", "Contrast", "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateX"),
        *("TranslateY", "Cutout", "SolarizeAdd", "Hue"),
    }
)
"""The operations of `policies.OPS` that convoy_augment supports."""

LIBRARY = native.NativeLibrary(
    FOLDER,
    used=True,
    logger=logging.getLogger("convoy.data"),
    without="native input operations %s; input takes up to twice the CPU time",
)
load, status = LIBRARY.operations, LIBRARY.status


@functools.cache
def _hushed() -> ctypes.CDLL | None:
    """Loads the library and stops libjpeg from printing to standard error."""
    if LIBRARY.load()[0] is None:
        return None
    library = LIBRARY.functions()
    library.convoy_libjpeg_said.restype = ctypes.c_char_p
    library.convoy_hush_libjpeg()
    return library


def hush_libjpeg() -> None:
    """Stops libjpeg from printing to standard error about broken pictures, without naming them.

    Does nothing if the library is not built.
    """
    _hushed()


def libjpeg_said() -> str:
    """Returns libjpeg's first message in this thread since the last call; "" if there is none.

    A picture that was decoded all the same may be damaged inside.
    """
    library = _hushed()
    return "" if library is None else library.convoy_libjpeg_said().decode().strip()


def disabled() -> contextlib.AbstractContextManager[None]:
    """Makes code traced inside use TensorFlow's own operations: for tests and benchmarks."""
    return LIBRARY.switched(False)
