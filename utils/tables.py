"""Prints tables on a terminal and to files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_WIDE = 10_000


@contextmanager
def columns(count: int) -> Iterator[None]:
    """Makes libraries draw rich tables `count` characters wide, whatever `COLUMNS` says."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(count)
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def table_console() -> Console:
    """Returns rich's console for standard output.

    On a terminal, a table keeps to its width. In a file or a pipe, where programs read lines and
    `COLUMNS` belongs to another window, it is as wide as necessary.
    """
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=_WIDE)
