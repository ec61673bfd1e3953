"""Expands paths as people write them: `~` and `~name` for home folders."""

from __future__ import annotations

import os

from convoy.utils.errors import UserError


class PlaceError(UserError, ValueError):
    """A path is not usable as written. The text names the flag and the way out."""


def expand_home(path: str, flag: str) -> str:
    """Replaces a leading `~` or `~name` of a path by the home folder.

    Shells do this only at the beginning of a word, so `--model_dir=~/runs` and a `~` in a YAML file
    arrive unexpanded, and would make a folder called `~`.

    Args:
        path: as the user wrote it; URLs and other paths are returned unchanged.
        flag: for errors, such as "--model_dir".

    Raises:
        PlaceError: it is empty or has a zero byte, or there is no such home folder.
    """
    if not path.strip():
        raise PlaceError(f"{flag} is empty: name a path, or leave {flag} out")
    if "\0" in path:
        raise PlaceError(f"{flag} holds a zero byte, which no path can have")
    if not path.startswith("~"):
        return path
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        user = path.split("/", 1)[0]
        whose = f"there is no user {user[1:]} here" if user != "~" else "no home folder is known"
        raise PlaceError(f"{flag} {path}: {whose}; for a folder called {user}, write ./{path}")
    return expanded
