"""C++ versions of what the input pipeline spends its time on, if they have been built.

:func:`load` gives TensorFlow's module of them, or None: then the callers,
``dataloader.augment.augmenter`` and ``dataloader.images.crops``, use TensorFlow's own operations,
which give the same bytes and take longer. ``scripts/build_native.sh`` builds; ``make setup`` calls
it. Importing costs no TensorFlow.

The module's functions, each for one image on the CPU (see ``kernels.h``):

    convoy_augment(image, ops, arguments, centres, names): uint8 (H, W, 3); int32 (steps,) indices
        into ``names``; float64 (steps,); float32 (steps, 2).
    convoy_resize(image, size, flip): uint8 (H, W, 3); int32 (2,); bool.
    convoy_crop_window(shape, areas, stretch, places, limits): int32 (2,); float32 (attempts,),
        (2, attempts), (2, attempts), (2,).
    convoy_orientation(encoded): string; int32, see ``dataloader.images.orientation``.
    convoy_upright(image, orientation): uint8 (H, W, 3); int32.
    convoy_stored_window(window, shape, orientation): int32 (4,), (2,) and scalar.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from convoy.utils import native

logger = logging.getLogger("convoy.data")

FOLDER = Path(__file__).parent
AUGMENT_OPS = frozenset(
    {
        *("Identity", "AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize"),
        *("Color", "Contrast", "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateX"),
        *("TranslateY", "Cutout", "SolarizeAdd", "Hue"),
    }
)
"""The operations of ``policies.OPS`` that convoy_augment knows."""

_disabled = 0


def library_path() -> Path:
    """Where the library lies, once it is built."""
    return native.library_path(FOLDER)


@functools.lru_cache(maxsize=1)
def _load() -> tuple[ModuleType | None, str]:
    """The module or None, and what to tell the user."""
    return native.load_library(library_path())


@functools.lru_cache(maxsize=1)
def _announce() -> None:
    module, state = _load()
    if module is None:
        logger.info("native input operations %s; input takes up to twice the CPU time", state)


def load() -> ModuleType | None:
    """The operations, or None if they are not built, do not load or are :func:`disabled`."""
    if _disabled:
        return None
    _announce()
    return _load()[0]


@functools.cache
def _hushed() -> ctypes.CDLL | None:
    """The library, once it keeps what libjpeg prints off standard error."""
    if _load()[0] is None:
        return None
    library = ctypes.CDLL(str(library_path()))
    library.convoy_libjpeg_said.restype = ctypes.c_char_p
    library.convoy_hush_libjpeg()
    return library


def hush_libjpeg() -> None:
    """Keeps what libjpeg prints about broken pictures, without their names, off standard error;
    without the library it goes on doing so.
    """
    _hushed()


def libjpeg_said() -> str:
    """The first thing that libjpeg had to say in this thread since the last call; "" for nothing.

    A picture that was decoded all the same may be damaged inside.
    """
    library = _hushed()
    return "" if library is None else library.convoy_libjpeg_said().decode().strip()


def status() -> str:
    """One line for `--mode env`."""
    return _load()[1]


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """What is traced inside uses TensorFlow's own operations: for tests and benchmarks."""
    global _disabled
    _disabled += 1
    try:
        yield
    finally:
        _disabled -= 1
