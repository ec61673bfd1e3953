"""Finds and loads C++ libraries, which `compile` compiles: TensorFlow operations, plain functions.

In a checkout `scripts/build_native.sh` compiles them, in an installed package the first program
that wants them.

Importing this does not import TensorFlow.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from convoy.utils.places import cache_folder

SHARED = Path(__file__).parent
"""Folder of headers that all libraries of TensorFlow operations include."""
_INCLUDED = re.compile(r'^#include "([^"]+)"', re.M)


def uses_tensorflow(folder: Path) -> bool:
    """Returns whether a folder's library has operations of TensorFlow, and not plain functions."""
    return (folder / "ops.cc").exists()


def library_path(folder: Path) -> Path:
    """Returns the path of a folder's library for the installed TensorFlow, built or not.

    It is beside the sources, or in the user's cache where that folder cannot be written.

    The name changes with both, so that an outdated library is never loaded.
    """
    key = hashlib.sha256(tensorflow_version().encode() if uses_tensorflow(folder) else b"")
    for source in _sources(folder):
        key.update(source.read_bytes())
    library = folder / f"convoy-{key.hexdigest()[:16]}.so"
    if library.exists() or os.access(folder, os.W_OK):
        return library
    return cache_folder("native") / folder.parent.name / library.name


def _sources(folder: Path) -> list[Path]:
    own = sorted((*folder.glob("*.cc"), *folder.glob("*.h")))
    if uses_tensorflow(folder):
        return own + sorted(SHARED.glob("*.h"))
    found = list(own)
    for source in found:  # it grows
        for name in _INCLUDED.findall(source.read_text()):
            near, far = source.parent / name, SHARED.parents[1] / name
            included = near if near.exists() else far
            found += [included] if included not in found else []
    return found


def tensorflow_version() -> str:
    """Returns the installed TensorFlow's version without importing it; "" if there is none."""
    for package in ("tensorflow", "tensorflow-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(package)
    return ""


def tensorflow_folder() -> Path:
    """Finds the folder of the installed TensorFlow's headers and libraries, without an import."""
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


class NativeLibrary:
    """The operations built from one folder of C++ sources.

    Attributes:
        folder: the folder.
        used: whether code that is traced now may use the operations.

    Args:
        folder, used: as the attributes.
        logger: receives `without`, once, if the operations are wanted and missing.
        without: the message; `%s` becomes the reason.
        prepare: called once with the library's own functions; returns what `status` adds.
    """

    def __init__(
        self,
        folder: Path,
        *,
        used: bool,
        logger: logging.Logger,
        without: str,
        prepare: Callable[[ctypes.CDLL], str] = lambda functions: "",
    ) -> None:
        self.folder, self.used = folder, used
        self._logger, self._without, self._prepare = logger, without, prepare
        self.forget()

    def forget(self) -> None:
        """Looks for the library again at its next use: for tests, which build it or hide it."""
        self._found: tuple[ModuleType | None, str] | None = None
        self._functions: ctypes.CDLL | None = None
        self._told = False

    def path(self) -> Path:
        """Returns the library's path, whether it is built or not."""
        return library_path(self.folder)

    def load(self) -> tuple[ModuleType | None, str]:
        """Returns the operations or None, whether `used` or not, and a message for the user."""
        if self._found is None:
            module, state = load_library(self.path())
            if module is not None and (more := self._prepare(self.functions())):
                state = f"{state} ({more})"
            self._found = module, state
        return self._found

    def operations(self) -> ModuleType | None:
        """Returns the operations, or None if they are not built, do not load or are not `used`."""
        if not self.used:
            return None
        module, state = self.load()
        if module is None and not self._told:
            self._told = True
            self._logger.info(self._without, state)
        return module

    def functions(self) -> ctypes.CDLL:
        """Returns the functions of the library that are not operations of TensorFlow."""
        if self._functions is None:
            self._functions = ctypes.CDLL(str(self.path()))
        return self._functions

    def status(self) -> str:
        """Returns one line for `--mode env`, which builds nothing."""
        return self.load()[1] if self.path().exists() else absent()

    @contextlib.contextmanager
    def switched(self, used: bool) -> Iterator[None]:
        """Makes code traced inside use the operations, if they are built, or TensorFlow's own."""
        before, self.used = self.used, used
        try:
            yield
        finally:
            self.used = before
