"""Which files `--predict_dir` means: a folder, a pattern, a list of paths. No TensorFlow."""

from __future__ import annotations

import glob
import logging
import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

from convoy.dataloader.folders import CONVERT, IMAGE_ENDINGS, OTHER_ENDINGS

logger = logging.getLogger("convoy.data")

STDIN = "-"
LIST_ENDING = ".txt"
# The largest picture that is decoded has 268 MB of pixels; a file beyond this is none of those.
MAX_BYTES = 512 * 2**20


def is_pattern(where: str) -> bool:
    """Whether it is to be matched against names; a file of that very name comes first."""
    return glob.has_magic(where) and not os.path.lexists(where)


def find_images(where: str | Path, refused: dict[Path, str] | None = None) -> list[Path]:
    """The files to label, in a settled order.

    A folder is searched through, sorted, without hidden files; endings may be in any case, and
    links to folders are not followed, so that a loop of links ends. A pattern (`photos/**/*.jpg`)
    gives what it matches, each once. A file that ends in `.txt`, or standard input for `-`, lists
    paths, one a line or separated by NUL (`find -print0`), as seen from the current folder. Files
    that are named are taken whatever their ending.

    Args:
        refused: folders that could not be searched are put in here, with the reason; they stand in
            the result too, so that nothing goes missing in silence.
    """
    refused = {} if refused is None else refused
    text = os.fspath(where)
    if text == STDIN:
        names: Iterable[str] = _listed(sys.stdin.buffer.read())
    elif is_pattern(text):
        names = sorted(glob.glob(text, recursive=True))
    elif text.lower().endswith(LIST_ENDING) and os.path.isfile(text):
        names = _listed(Path(text).read_bytes())
    else:
        names = [text]
    found: list[Path] = []
    for name in names:
        found += _search(name, refused) if os.path.isdir(name) else [Path(name)]
    # A pattern can match a folder and the files in it (`photos/**`).
    return list(dict.fromkeys(found)) if is_pattern(text) else found


def read_image(file: Path) -> bytes:
    """A file's bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is a pipe, a device or the like, or far too large for an image.
    """
    facts = file.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise ValueError("not a regular file")
    if facts.st_size > MAX_BYTES:
        raise ValueError(f"{facts.st_size >> 20} MiB: too large for an image")
    return file.read_bytes()


def _listed(content: bytes) -> list[str]:
    lines = content.split(b"\0") if b"\0" in content else content.splitlines()
    return [os.fsdecode(line) for line in lines if line.strip()]


def _search(folder: str, refused: dict[Path, str]) -> list[Path]:
    found, others = [], []

    def refuse(error: OSError) -> None:
        path = Path(error.filename)
        refused[path] = f"this folder cannot be searched: {error.strerror}"
        found.append(path)

    for root, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if name.startswith("."):
                continue
            if name.lower().endswith(IMAGE_ENDINGS):
                found.append(Path(root) / name)
            elif name.lower().endswith(OTHER_ENDINGS):
                others.append(name)
    if others:
        logger.warning(
            "%s: %d files were passed over, such as %r: %s", folder, len(others), others[0], CONVERT
        )
    return sorted(found)
