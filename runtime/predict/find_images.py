"""Finds the files for `--predict_dir`: a folder, a pattern, or a list of paths. No TensorFlow."""

from __future__ import annotations

import glob
import os
import stat
import sys
from pathlib import Path

from convoy.dataloader.images.file_kinds import Left, scan
from convoy.dataloader.sources.splits import is_list
from convoy.utils.errors import ConfigError
from convoy.utils.text import TextError, decode_text, is_marked, split_lines

STDIN = "-"
LIST_ENDING = ".txt"
# The largest picture that we decode has 268 MB of pixels; a larger file cannot be one.
MAX_BYTES = 512 * 2**20


def is_pattern(where: str) -> bool:
    """Returns whether it is a pattern for names; a file with exactly this name takes precedence."""
    return glob.has_magic(where) and not os.path.lexists(where)


def find_images(
    where: str | Path, refused: dict[Path, str] | None = None, left: Left | None = None
) -> list[Path]:
    """Returns the files to label, in a fixed order.

    In a folder, it finds everything that looks like a picture by its ending, or by its first bytes
    if the ending says nothing, readable or not, in sorted order. It skips hidden files and does not
    follow links to folders, so link loops are harmless. A pattern (`photos/**/*.jpg`) gives each
    match once. A file ending in `.txt`, or standard input for `-`, lists paths, one per line or
    each ended by NUL (`find -print0`), relative to the current folder; it searches a listed folder
    only if its line ends with a slash. Listed files may have any ending.

    Args:
        where: folder, pattern, picture, list, or `-`.
        refused: collects folders that were not searched, with the reason; they are also in the
            result, so that nothing is dropped silently.
        left: counts files left out of folders.

    Raises:
        TextError: the list is not a text file.
        ConfigError: it is a table.
    """
    refused = {} if refused is None else refused
    left = Left() if left is None else left
    text = os.fspath(where)
    if text == STDIN:
        names = _listed(sys.stdin.buffer.read(), "the list on standard input")
    elif is_pattern(text):
        names = sorted(glob.glob(text, recursive=True))
    elif text.lower().endswith(LIST_ENDING) and os.path.isfile(text):
        names = _listed(Path(text).read_bytes(), f"--predict_dir {text}")
    elif is_list(text):  # which training takes
        raise ConfigError(
            f"--predict_dir {text} is a table: write the paths of its images into a .txt file, one"
            " on a line, and give that"
        )
    else:
        return _search(text, refused, left) if os.path.isdir(text) else [Path(text)]
    found: list[Path] = []
    listed = not is_pattern(text)
    for name in names:
        if not os.path.isdir(name):
            found.append(Path(name))
        elif listed and (reason := _not_searched(name)):
            refused[Path(name)] = reason
            found.append(Path(name))
        else:
            found += _search(name, refused, left)
    # A pattern can match a folder and also its files (`photos/**`).
    return list(dict.fromkeys(found)) if is_pattern(text) else found


def _not_searched(folder: str) -> str | None:
    """Says why a listed folder is not searched: it may be in the list by accident."""
    if not os.path.abspath(folder).strip("/"):
        return "the whole disk: name the folders to be searched"
    return None if folder.endswith("/") else "a folder: end the line with / to have it searched"


def read_image(file: Path) -> bytes:
    """Returns a file's bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is a pipe, a device or similar, or far too large for an image.
    """
    facts = file.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise ValueError("not a regular file")
    if facts.st_size > MAX_BYTES:
        raise ValueError(f"{facts.st_size >> 20} MiB: too large for an image")
    return file.read_bytes()


def _listed(content: bytes, name: str) -> list[str]:
    """Returns the paths of a list.

    A byte order mark, as written by Windows, gives the encoding; without one, paths are the file
    system's own bytes, which need not be UTF-8.

    Raises:
        TextError: it is not a list of paths.
    """
    if is_marked(content):
        lines = split_lines(decode_text(content, name))
    elif b"\0" in content:
        *paths, rest = content.split(b"\0")
        # UTF-16 without its mark has a zero byte beside each ASCII letter, and so beside line ends.
        letters = sum(len(path) <= 1 for path in paths)
        if rest or 2 * letters > len(paths) or any(path.isspace() for path in paths):
            raise TextError(
                f"{name} holds zero bytes, and not as find -print0 has them, one at the end of each"
                " path: save it as UTF-8"
            )
        lines = [os.fsdecode(path) for path in paths]
    else:
        lines = split_lines(os.fsdecode(content))
    return [_meant(line) for line in lines if line.strip()]


def _meant(line: str) -> str:
    """Returns the path that a line of a list means.

    If no file has exactly this name, surrounding spaces and quotes (Windows' "Copy as path") are
    dropped, and a leading `~` is the home folder.
    """
    bare = line.strip()
    if len(bare) > 2 and bare[0] == bare[-1] and bare[0] in "\"'":
        bare = bare[1:-1]
    for path in (line, bare):
        if os.path.lexists(path):
            return path
    at_home = os.path.expanduser(bare)
    return line if at_home == bare else at_home


def _search(folder: str, refused: dict[Path, str], left: Left) -> list[Path]:
    errors: dict[str, OSError] = {}
    found = scan(folder, unread=True, refused=errors)
    left.add(found.left)
    for name, error in errors.items():
        refused[Path(name)] = f"this folder cannot be searched: {error.strerror}"
    return sorted([*(Path(folder) / name for name in found.files), *map(Path, errors)])
