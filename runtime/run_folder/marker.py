"""Writes and checks `COMPLETE.json`, the marker that makes a folder of files a checkpoint.

The marker is written last, with the size and SHA-256 of every other file. A folder without a marker
that matches its files is not a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

from convoy.utils import strict_json
from convoy.utils.files import Remote, files_in, size_of, stamp_of, sync, write_atomically
from convoy.utils.score_file import MARKER

_SETTLED = 2.0
"""Seconds. A file that changed this shortly before reading may change again with the same time."""
_known: dict[str, tuple[tuple[int, ...], str]] = {}  # path -> stamp and SHA-256 at that time


def write_marker(folder: Path | Remote) -> None:
    """Makes a folder of complete files a checkpoint, and waits until it is on the disk."""
    marker = {}
    for file in files_in(folder):
        sync(file)
        marker[file.name] = {"size": size_of(file), "sha256": sha256(file)}
    write_atomically(folder / MARKER, strict_json.dumps(marker, indent=1))
    sync(folder)


def is_complete(folder: Path | Remote, *, checksums: bool = False) -> bool:
    """Returns whether the marker exists and matches the files' sizes.

    Args:
        folder: the checkpoint's.
        checksums: compare SHA-256 too.
    """
    try:
        marker = json.loads((folder / MARKER).read_text())
        for name, facts in marker.items():
            file = folder / name
            if size_of(file) != facts["size"]:
                return False
            if checksums and sha256(file) != facts["sha256"]:
                return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return "model.safetensors" in marker and "state.json" in marker


def weights_sha256(folder: Path | Remote, weights: str) -> str:
    """Returns the SHA-256 of a checkpoint's weights, "raw" or "ema", as its marker says.

    Raises:
        OSError, ValueError: the marker cannot be read, or it has no such weights.
    """
    file = f"{'ema' if weights == 'ema' else 'model'}.safetensors"
    try:
        return str(json.loads((folder / MARKER).read_text())[file]["sha256"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder} has no {file}") from error


def sha256(file: Path | Remote) -> str:
    """Returns a file's SHA-256.

    A process reads an unchanged file only once: several places find, check and read a checkpoint.
    """
    stamp = stamp_of(file)
    before, digest = _known.get(str(file), ((), ""))
    if stamp and stamp == before:
        return digest
    total = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            total.update(chunk)
    if stamp and time.time() - stamp[0] / 1e9 > _SETTLED and stamp_of(file) == stamp:
        _known[str(file)] = stamp, total.hexdigest()
    return total.hexdigest()
