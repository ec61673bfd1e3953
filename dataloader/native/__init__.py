"""C++ versions of what the input pipeline spends its time on, if they have been built.

:func:`load` gives TensorFlow's module of them, or None: then the callers, ``dataloader.augment``
and ``dataloader.decode``, use TensorFlow's own operations, which give the same bytes and take
longer. ``scripts/build_native.sh`` builds; ``make setup`` calls it. Importing costs no TensorFlow.

The module's functions, each for one image on the CPU (see ``kernels.h``):

    convoy_augment(image, ops, arguments, centres, names): uint8 (H, W, 3); int32 (steps,) indices
        into ``names``; float64 (steps,); float32 (steps, 2).
    convoy_resize(image, size, flip): uint8 (H, W, 3); int32 (2,); bool.
    convoy_crop_window(shape, areas, stretch, places, limits): int32 (2,); float32 (attempts,),
        (2, attempts), (2, attempts), (2,).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

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
    """Where the library of these sources and the installed TensorFlow lies, once it is built.

    Its name changes with both, so that a stale one is never loaded.
    """
    key = hashlib.sha256(tensorflow_version().encode())
    for source in sorted((*FOLDER.glob("*.cc"), *FOLDER.glob("*.h"))):
        key.update(source.read_bytes())
    return FOLDER / f"convoy-{key.hexdigest()[:16]}.so"


def tensorflow_version() -> str:
    """The installed TensorFlow's version, without importing it; empty if there is none."""
    for package in ("tensorflow", "tensorflow-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(package)
    return ""


def tensorflow_folder() -> Path:
    """Where the installed TensorFlow keeps its headers and libraries, without importing it."""
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("TensorFlow is not installed: run `make setup`.")
    return Path(spec.submodule_search_locations[0])


@functools.lru_cache(maxsize=1)
def _load() -> tuple[ModuleType | None, str]:
    """The module or None, and what to tell the user."""
    path = library_path()
    if not path.exists():
        return None, "not built for this TensorFlow and source (scripts/build_native.sh builds)"
    import tensorflow as tf

    try:
        return tf.load_op_library(str(path)), "in use"
    except (tf.errors.OpError, RuntimeError, OSError) as error:
        return None, f"cannot be loaded: {str(error).splitlines()[0]}"


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
