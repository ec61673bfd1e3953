"""Printed tables, on a terminal and in files."""

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
    """Makes rich's tables within libraries that many characters wide, whatever `COLUMNS` says."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(count)
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def table_console() -> Console:
    """rich's console for standard output: a table keeps to a terminal's width. In a file or a pipe,
    where programs read lines and `COLUMNS` is some other window's, it is as wide as it needs to be.
    """
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=_WIDE)
