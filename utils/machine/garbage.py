"""Keeps Python's garbage collector away where everything that is made stays alive."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Turns garbage collection off in the block.

    Importing TensorFlow or building a model makes hundreds of thousands of objects that stay alive.
    Searching them again and again takes a tenth of the building time, and a fifth of the import's.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
