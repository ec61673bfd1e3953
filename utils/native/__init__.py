"""Loads libraries of TensorFlow operations in C++, which `compile` compiles: in a checkout
`scripts/build_native.sh` calls it, in an installed package the first program that wants them.

Importing this does not import TensorFlow.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
from pathlib import Path
from types import ModuleType

SHARED = Path(__file__).parent
"""Folder of headers that all libraries include."""


def library_path(folder: Path) -> Path:
    """Returns the path of the library for a folder's sources and the installed TensorFlow, built or
    not: beside the sources, or in the user's cache where that folder cannot be written.

    The name changes with both, so that an outdated library is never loaded.
    """
    key = hashlib.sha256(tensorflow_version().encode())
    for source in sorted((*folder.glob("*.cc"), *folder.glob("*.h"))) + sorted(SHARED.glob("*.h")):
        key.update(source.read_bytes())
    library = folder / f"convoy-{key.hexdigest()[:16]}.so"
    if library.exists() or os.access(folder, os.W_OK):
        return library
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "convoy", "native", folder.parent.name, library.name)


def tensorflow_version() -> str:
    """Returns the installed TensorFlow's version without importing it; "" if there is none."""
    for package in ("tensorflow", "tensorflow-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(package)
    return ""


def tensorflow_folder() -> Path:
    """Returns the folder of the installed TensorFlow's headers and libraries, without importing
    it.
    """
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("TensorFlow is not installed: run `make setup`.")
    return Path(spec.submodule_search_locations[0])


def load_library(path: Path) -> tuple[ModuleType | None, str]:
    """Returns the module of a library's operations, or None; and a message for the user."""
    if not path.exists():
        from convoy.utils.native.compile import build_on_first_use

        if state := build_on_first_use(path):
            return None, state
    import tensorflow as tf

    try:
        return tf.load_op_library(str(path)), "in use"
    except (tf.errors.OpError, RuntimeError, OSError) as error:
        return None, f"cannot be loaded: {str(error).splitlines()[0]}"


def absent() -> str:
    """What to say of a library that is not built, without building it."""
    from convoy.utils.native import compile

    return compile.absent()
