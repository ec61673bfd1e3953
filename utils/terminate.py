"""A last word where C++ code of a library throws what nobody catches: for lack of memory.

TensorFlow's threads on processors throw `std::bad_alloc`, which no Python code sees: the process is
ended by `std::terminate`.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

_Handler = ctypes.CFUNCTYPE(None)
_kept: Any = None  # C++ holds its address only


def tell_of_bad_alloc(text: Callable[[], str], code: int) -> None:
    """Has the process end with an exit code and a line on standard error, instead of SIGABRT and
    C++'s own words, when an allocation fails in a thread of a library's. Other exceptions end it as
    they did. Does nothing where the C++ library is another than GNU's.

    Args:
        text: makes the line; called with little memory left.
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
        kind = exception_type()
        # A std::type_info is its table of functions, then its name.
        place = kind + ctypes.sizeof(ctypes.c_void_p) if kind else 0
        if place and ctypes.c_char_p.from_address(place).value == b"St9bad_alloc":
            try:
                os.write(2, f"{text()}\n".encode())
            finally:
                os._exit(code)
        _Handler(before[0])()

    _kept = _Handler(handle)
    before.append(set_terminate(ctypes.cast(_kept, ctypes.c_void_p)))
