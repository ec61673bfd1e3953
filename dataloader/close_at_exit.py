"""Closes open `tf.data` iterators before the interpreter exits.

A thread that enters Python during shutdown is stopped by the interpreter. If that thread reads
records for a `tf.data` iterator, whoever destroys the iterator waits forever for its answer. So we
close the iterators earlier, while Python still runs.
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
    """Returns `items`, and closes it at program exit if anybody still holds it then."""
    _open.add(items)
    return items


@atexit.register
def _close() -> None:
    for items in list(_open):
        with contextlib.suppress(ValueError):  # another thread is inside it, and closes or holds it
            items.close()
