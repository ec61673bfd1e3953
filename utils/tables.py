"""Printed tables, on a terminal and in files."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_WIDE = 10_000


def table_console() -> Console:
    """rich's console for standard output: a table keeps to a terminal's width. In a file or a pipe,
    where programs read lines and `COLUMNS` is some other window's, it is as wide as it needs to be.
    """
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=_WIDE)
