"""Prints a last message if a library's C++ code throws an exception that nobody catches.

It means out of memory or files, or a lost peer.

TensorFlow's CPU threads throw `std::bad_alloc`, which no Python code sees: `std::terminate` ends
the process. Gloo does the same in Horovod's own thread, if a rank is lost while all join.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from typing import Any

_Handler = ctypes.CFUNCTYPE(None)
_kept: Any = None  # C++ holds only its address


def tell_of_termination(text: Callable[[BaseException], str], code: int) -> None:
    """Makes an exception that no C++ code catches end the process with an exit code and a line.

    Without it, the process ends with SIGABRT and C++'s own text. It applies to a library's thread
    that runs out of memory or file descriptors, or has lost another rank (`ConnectionError`); other
    exceptions end the process as before. Does nothing if the C++ library is not GNU's.

    Args:
        text: makes the line from the error that Python would have raised, "" for no line; it is
            called with little memory left.
        code: exit code of the process.
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
    """Returns the error that Python would have raised; None for other exceptions.

    Args:
        kind: address of the exception's std::type_info: its table of functions, then its name.
    """
    place = kind + ctypes.sizeof(ctypes.c_void_p) if kind else 0
    name = ctypes.c_char_p.from_address(place).value or b"" if place else b""
    if name == b"St9bad_alloc":
        return MemoryError()
    if name.startswith(b"N4gloo"):
        return ConnectionError("the connection to another rank has broken off")
    try:  # C++ throws std::runtime_error, for example from std::random_device
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error if error.errno in (errno.EMFILE, errno.ENFILE) else None
    return None
