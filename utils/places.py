"""Finds folders of this user (home, the cache), and knows places where nothing may be written."""

from __future__ import annotations

import os
import re
from pathlib import Path

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


def spare_checkpoints(path: str, flag: str) -> None:
    """Refuses a place to write that lies in a run's checkpoints, which never change once complete.

    Raises:
        PlaceError: it does.
    """
    if "://" in path:
        found = re.search(r"^.*/checkpoints(?=/step-|/*$)", path)
        folder = found.group() if found else None
    else:
        place = Path(os.path.realpath(path))
        folder = next((str(p) for p in (place, *place.parents) if _has_checkpoints(p)), None)
    if folder:
        raise PlaceError(
            f"{flag} {path} lies among the checkpoints in {folder}, and writing there could damage"
            " them: choose another place"
        )


def _has_checkpoints(folder: Path) -> bool:
    return folder.name == "checkpoints" and any(folder.glob("step-*"))


def cache_folder(what: str) -> Path:
    """Returns the folder for one kind of files that can be made again, such as "index".

    It is in `$XDG_CACHE_HOME/convoy`, and need not exist.
    """
    home = os.path.expanduser(os.environ.get("XDG_CACHE_HOME", ""))
    if not os.path.isabs(home):  # the XDG specification says to ignore other values
        home = os.path.expanduser("~/.cache")
    return Path(home, "convoy", what)
