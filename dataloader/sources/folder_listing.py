"""Lists the images in a split's class folders, and caches long lists for the next start.

It uses a cached list only if any change would certainly show: on file systems that update a
folder's times whenever a file comes or goes, and whose times differ from folder to folder. It lists
mounted object stores and archives with fixed times again at each start.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from convoy.dataloader.images.file_kinds import (
    PICTURE_ENDINGS,
    Left,
    ending_of,
    is_folder,
    is_passed_over,
    scan,
)
from convoy.dataloader.tfrecord.random_access import index_folder, store_cached
from convoy.utils import strict_json

_FORMAT = "convoy-folder-2"
KEEP_FROM = 20_000
"""Number of files from which on a list is cached: fewer are listed within a second, even on a
network disk.
"""
_SETTLED_SECONDS = 2.0
_THREADS = 8
# File systems that update a folder's time (and its ctime, which nobody can set) with each file.
_FILE_SYSTEMS = frozenset(
    {
        *("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "overlay"),
        *("bcachefs", "nfs", "nfs4", "lustre", "ceph", "gpfs", "beegfs", "gfs2", "ocfs2"),
    }
)


@dataclass
class Listing:
    """The contents of class folders.

    Attributes:
        files: class folder, under its name on the file system -> sorted paths below the split's
            folder.
        left: what was left out.
        made: when a cached list was made, in seconds since 1970; None for a new list.
    """

    files: dict[str, list[str]]
    left: Left = field(default_factory=Left)
    made: float | None = None


def list_classes(folder: str, classes: Sequence[str]) -> Listing:
    """Lists the images at any depth below `folder` in each of these class folders.

    Raises:
        OSError: a folder cannot be read.
    """
    name = f"{_FORMAT}\0{os.path.realpath(folder)}".encode(errors="surrogateescape")
    path = str(index_folder() / f"{hashlib.sha256(name).hexdigest()}.json")
    kept = _load(path, folder, classes)
    if kept is not None:
        return kept
    begun = time.time()
    with ThreadPoolExecutor(_THREADS) as pool:  # threads hide the latency of network disks
        scans = list(pool.map(lambda raw: scan(os.path.join(folder, raw)), classes))
    found = Listing({})
    for raw, one in zip(classes, scans, strict=True):
        found.files[raw] = [f"{raw}/{file}" for file in one.files]
        found.left.add(one.left)
    if sum(map(len, found.files.values())) >= KEEP_FROM:
        pairs = zip(classes, scans, strict=True)
        below = [os.path.join(raw, name) for raw, one in pairs for name in one.folders]
        _keep(path, folder, found, ["", *below], begun)
    return found


def files_around(folder: str) -> tuple[int, Left]:
    """Counts what lies beside a split's class folders.

    Returns:
        The number of pictures, going by their endings, and everything left out.
    """
    left = Left()
    pictures = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            ending = os.path.splitext(entry.name)[1].lower()
            if is_folder(entry):
                if is_passed_over(entry.name):
                    left.folders["hidden" if entry.name.startswith(".") else entry.name] += 1
            elif entry.name.startswith("."):
                left.files["hidden"] += 1
            elif ending in PICTURE_ENDINGS:
                pictures += 1
                left.files["in no class folder"] += 1
            else:
                left.files[ending_of(entry.name)] += 1
    return pictures, left


def _keep(path: str, folder: str, found: Listing, folders: list[str], begun: float) -> None:
    times = {name: _times(os.path.join(folder, name)) for name in folders}
    latest = max(max(time[:2]) for time in times.values()) / 1e9
    # A folder that has just changed may change again without a new time.
    if latest < begun - _SETTLED_SECONDS and _times_tell(folder, times):
        content = {"made": begun, "times": times, "files": found.files, "left": asdict(found.left)}
        store_cached(path, strict_json.dumps(content).encode())


def _times(path: str) -> list[int]:
    facts = os.stat(path)
    return [facts.st_mtime_ns, facts.st_ctime_ns, facts.st_dev]


def _times_tell(folder: str, times: dict[str, list[int]]) -> bool:
    """Returns whether adding or removing a file would change one of these folders' times."""
    # Equal times were set on purpose: by an archive, or a mount without its own times.
    if len({changed for changed, _, _ in times.values()}) == 1 < len(times):
        return False
    if len({device for _, _, device in times.values()}) > 1:
        return False
    return _file_system(folder) in _FILE_SYSTEMS


def _file_system(folder: str) -> str | None:
    """Returns its type on Linux, such as "ext4" or "fuse.s3fs"."""
    best, kind = b"", None
    place = os.fsencode(os.path.realpath(folder)) + b"/"
    try:
        with open("/proc/self/mounts", "rb") as file:
            for line in file:
                _, point, this, *_ = line.split(b" ")
                point = re.sub(rb"\\(\d{3})", lambda found: bytes([int(found[1], 8)]), point)
                if place.startswith(point.rstrip(b"/") + b"/") and len(point) >= len(best):
                    best, kind = point, this.decode("ascii", "replace")
    except (OSError, ValueError):
        return None
    return kind


def _load(path: str, folder: str, classes: Sequence[str]) -> Listing | None:
    """Returns the cached list, if it exists and nothing has changed since."""
    try:
        with open(path, encoding="utf-8") as file:
            kept: dict[str, Any] = json.load(file)
        if list(kept["files"]) != list(classes):
            return None
        for name, times in kept["times"].items():
            if _times(os.path.join(folder, name)) != times:
                return None
        if not _times_tell(folder, kept["times"]):
            return None
        left = Left(**{name: Counter(counts) for name, counts in kept["left"].items()})
        return Listing(kept["files"], left, kept["made"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
