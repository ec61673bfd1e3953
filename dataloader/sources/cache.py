"""Keeps encoded examples in memory or on a local disk after they were read once.

The cache is one unnamed file per process, in memory (memfd) or in a temporary folder: the system
frees it when the process ends, in whatever way. It holds the raw bytes before decoding, so
crops and augmentation stay random, and any order and resuming work as without a cache.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
from typing import cast

import numpy as np

from convoy.dataloader.errors import DataError
from convoy.dataloader.sources.source import Source, Wrapped
from convoy.utils.machine.resources import free_memory

logger = logging.getLogger("convoy.data")

KINDS = ("none", "ram", "disk")
SHARE = 0.4  # fraction of the free space; two splits may each have a cache
_GB = 1e9


class CachedSource(Wrapped):
    """A source that keeps examples up to a number of bytes, and reads the rest each time.

    Args:
        source: the source of the examples.
        kind: "ram" or "disk".
        limit: bytes that this process may keep.
        folder: folder of a disk cache; None for the system's temporary folder.

    Raises:
        DataError: the cache cannot be made.
    """

    def __init__(self, source: Source, kind: str, limit: int, folder: str | None = None):
        super().__init__(source)
        self._limit, self.num_classes = limit, source.num_classes
        self.class_names, self.labels = source.class_names, source.labels
        self._file = _open(kind, folder)
        self._offsets = np.full(self.num_examples, -1, np.int64)
        self._lengths = np.zeros(self.num_examples, np.int64)
        self._end, self._kept, self._full = 0, 0, False
        self._lock = threading.Lock()
        place = "memory" if kind == "ram" else folder or tempfile.gettempdir()
        logger.info(
            "caching up to %.1f GB of encoded images in %s, in each process", limit / _GB, place
        )

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def read(self, indices: np.ndarray) -> list[bytes]:
        """Returns kept bytes; reads the missing ones, and keeps them if there is room."""
        contents = [self._cached(int(i)) for i in indices]
        missing = [slot for slot, content in enumerate(contents) if content is None]
        if missing:
            read = self.inner.read(np.asarray(indices)[missing])
            for slot, content in zip(missing, read, strict=True):
                contents[slot] = content
                self._keep(int(indices[slot]), content)
        return cast("list[bytes]", contents)

    def parse(self, raw: bytes, label: int) -> tuple[bytes, int]:
        """See `Source.parse`; the inner source knows the format."""
        return self.inner.parse(raw, label)

    def count_classes(self) -> int | None:
        """See `Source.count_classes`; the inner source counts."""
        return self.inner.count_classes()

    def occurring_labels(self) -> list[int]:
        """See `Source.occurring_labels`; the inner source looks."""
        return self.inner.occurring_labels()

    def all_labels(self) -> np.ndarray:
        """See `Source.all_labels`; the inner source looks."""
        return self.inner.all_labels()

    @property
    def cached(self) -> tuple[int, int]:
        """Returns how many examples the cache holds, and their bytes."""
        return self._kept, self._end

    def _cached(self, i: int) -> bytes | None:
        offset = int(self._offsets[i])
        return None if offset < 0 else os.pread(self._file, int(self._lengths[i]), offset)

    def _keep(self, i: int, content: bytes) -> None:
        with self._lock:
            if self._full or self._offsets[i] >= 0:
                return
            start = self._end
            if start + len(content) > self._limit:
                self._stop("its limit is reached; --cache_gb raises it")
                return
            try:
                written = os.pwrite(self._file, content, start)
            except OSError as error:
                self._stop(error.strerror or str(error))
                return
            if written < len(content):
                self._stop("the disk is full")
                return
            self._end += len(content)
            # Set the length first: readers check the offset without taking the lock.
            self._lengths[i], self._kept = len(content), self._kept + 1
            self._offsets[i] = start

    def _stop(self, why: str) -> None:
        self._full = True
        logger.warning(
            "the cache is full with %d of %d images (%.1f GB): %s. The others are read each time.",
            *(self._kept, self.num_examples, self._end / _GB, why),
        )


def cache_source(
    source: Source,
    kind: str,
    limit_gb: float | None = None,
    folder: str | None = None,
    processes: int = 1,
) -> Source:
    """Puts a cache in front of a source; for "none" returns the source itself.

    Args:
        source: the source of the examples.
        kind: "none", "ram" or "disk".
        limit_gb: gigabytes (10^9 bytes) that this process may use; None takes 40 % of the space now
            free on this host, divided by its `processes`.
        folder: folder of a disk cache; None for the system's temporary folder.
        processes: number of processes that cache on this host.

    Raises:
        DataError: the cache cannot be made.
        ValueError: an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"cache must be one of {', '.join(KINDS)}, got {kind!r}.")
    if kind == "none":
        return source
    if limit_gb is None:
        free = free_memory() if kind == "ram" else _free_disk(folder)
        limit_gb = SHARE * free / processes / _GB
    return CachedSource(source, kind, int(limit_gb * _GB), folder)


def _open(kind: str, folder: str | None) -> int:
    try:
        if kind == "ram" and hasattr(os, "memfd_create"):
            return os.memfd_create("convoy-cache")
        with tempfile.TemporaryFile(dir=folder) as file:
            if kind == "ram":
                raise DataError("--cache ram needs Linux; use --cache disk.")
            return os.dup(file.fileno())
    except OSError as error:
        raise DataError(
            f"--cache {kind}: no file can be made in {folder or tempfile.gettempdir()} "
            f"({error.strerror}). Name another folder with --cache_dir."
        ) from error


def _free_disk(folder: str | None) -> int:
    try:
        return shutil.disk_usage(folder or tempfile.gettempdir()).free
    except OSError as error:
        raise DataError(f"--cache_dir {folder}: {error.strerror}.") from error
