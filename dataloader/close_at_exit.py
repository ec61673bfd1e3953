"""Iterators that an ending interpreter finds open.

A thread that enters Python while the interpreter ends is taken away by it. If that thread reads
records for a `tf.data` iterator, whoever destroys the iterator waits for its answer for ever. So
they are closed before, while Python still runs.
"""

from __future__ import annotations

import atexit
import contextlib
import weakref
from collections.abc import Generator
from typing import Any, TypeVar

Items = TypeVar("Items", bound=Generator[Any, None, None])

_open: weakref.WeakSet[Generator[Any, None, None]] = weakref.WeakSet()


def close_at_exit(items: Items) -> Items:
    """`items`, which will be closed when the program ends, unless nobody holds it by then."""
    _open.add(items)
    return items


@atexit.register
def _close() -> None:
    for items in list(_open):
        with contextlib.suppress(ValueError):  # another thread is in it, and closes it or holds it
            items.close()
