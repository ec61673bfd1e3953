"""A last word where C++ code of a library throws what nobody catches: for lack of memory, files or
peers.

TensorFlow's threads on processors throw `std::bad_alloc`, which no Python code sees: the process is
ended by `std::terminate`. So does Gloo in Horovod's own thread, when a rank is lost while all join.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from typing import Any

_Handler = ctypes.CFUNCTYPE(None)
_kept: Any = None  # C++ holds its address only


def tell_of_termination(text: Callable[[BaseException], str], code: int) -> None:
    """Has the process end with an exit code and a line on standard error, instead of SIGABRT and
    C++'s own words, when a thread of a library's lacks memory, or descriptors of files, or has lost
    another rank (`ConnectionError`). Other exceptions end it as they did. Does nothing where the
    C++ library is another than GNU's.

    Args:
        text: makes the line from the error that Python would have raised, "" for none; called with
            little memory left.
    """
    global _kept
    try:
        library = ctypes.CDLL("libstdc++.so.6")
        set_terminate = library._ZSt13set_terminatePFvvE
        exception_type = getattr(library, "__cxa_current_exception_type")
    except (OSError, AttributeError):
        return
    set_terminate.argtypes, set_terminate.restype = [ctypes.c_void_p], ctypes.c_void_p
    exception_type.restype = ctypes.c_void_p
    before: list[int] = []

    def handle() -> None:
        if (error := _as_error(exception_type())) is not None:
            try:
                if line := text(error):
                    os.write(2, f"{line}\n".encode())
            finally:
                os._exit(code)
        _Handler(before[0])()

    _kept = _Handler(handle)
    before.append(set_terminate(ctypes.cast(_kept, ctypes.c_void_p)))


def _as_error(kind: int | None) -> BaseException | None:
    """What Python would have raised; None for exceptions that mean something else.

    Args:
        kind: address of the exception's std::type_info: its table of functions, then its name.
    """
    place = kind + ctypes.sizeof(ctypes.c_void_p) if kind else 0
    name = ctypes.c_char_p.from_address(place).value or b"" if place else b""
    if name == b"St9bad_alloc":
        return MemoryError()
    if name.startswith(b"N4gloo"):
        return ConnectionError("the connection to another rank has broken off")
    try:  # C++ says std::runtime_error, of std::random_device for one
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error if error.errno in (errno.EMFILE, errno.ENFILE) else None
    return None
