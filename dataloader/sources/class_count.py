"""Counts the classes in TFRecord files, and how often each label occurs.

It reads every record's label once and skips over the image: a few short reads per record instead of
all its bytes. The result is cached beside the index of the records. Needs no TensorFlow.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from convoy.dataloader.errors import DataError
from convoy.dataloader.tfrecord.example import decode_example, field, from_varint
from convoy.dataloader.tfrecord.random_access import (
    HEADER_BYTES,
    RecordIndex,
    cache_path,
    store_cached,
)

logger = logging.getLogger("convoy.data")

_FORMAT = "convoy-labels-2"
UNREAD = np.iinfo(np.int64).min
"""Label value for a record that cannot be read."""
_WINDOW = 512  # bytes per read; an image between two keys is not read


def count_classes(files: Sequence[str], index: RecordIndex, key: str, first_label: int) -> int:
    """Returns the number of classes: the largest label of all records, counted from `first_label`.

    Args:
        files: TFRecord files.
        index: the index of their records.
        key: key of the label, one int64.
        first_label: the number of the first class.

    Raises:
        DataError: no record has a label, a label is below the first, or so few of the numbers up to
            the largest occur that the largest may be an error.
    """
    return _judge(labels_of(files, index, key), os.path.dirname(files[0]), key, first_label)


def labels_of(files: Sequence[str], index: RecordIndex, key: str) -> list[int]:
    """Returns the different labels stored under `key`, in rising order."""
    found = np.unique(every_label(files, index, key))
    return found[found != UNREAD].tolist()


def every_label(
    files: Sequence[str], index: RecordIndex, key: str, *, threads: int = 8
) -> np.ndarray:
    """Returns each record's label under `key` as stored, `UNREAD` if none: int64 `(records,)`."""
    stats = [os.stat(path) for path in files]
    kept = cache_path(files, stats, f"{_FORMAT} {key}", ".npy")
    found = _load(kept, len(index.offsets))
    if found is None:
        logger.info(
            "%s: reading the labels of %d records; the result is kept for next time",
            *(os.path.dirname(files[0]), len(index.offsets)),
        )
        ends = index.ends.tolist()
        with ThreadPoolExecutor(max(1, min(threads, len(files)))) as pool:
            parts = pool.map(
                lambda job: _labels_of(job[0], index, job[1], job[2], key),
                zip(files, [0, *ends], ends, strict=False),
            )
            found = np.concatenate([np.zeros(0, np.int64), *parts])
        stream = io.BytesIO()
        np.save(stream, found, allow_pickle=False)
        store_cached(kept, stream.getvalue())
    return found


def _judge(labels: Sequence[int], folder: str, key: str, first_label: int) -> int:
    way_out = (
        "Set --num_classes, or put a labels.txt with one class name per line beside the files."
    )
    if not labels:
        raise DataError(f"{folder}: no record has a label under {key}. {way_out}")
    if labels[0] < first_label:
        raise DataError(
            f"{folder}: {key} counts classes from {first_label}, and there are records with"
            f" {labels[0]}. Give --first_label {labels[0]} if they count from there, as"
            " TF-Slim's data sets count from 0; or write records with labels from"
            f" {first_label} on."
        )
    classes = labels[-1] - first_label + 1
    if classes > 2 * len(labels):
        raise DataError(
            f"{folder}: labels go up to {labels[-1]}, but only {len(labels)} different ones occur. "
            + way_out
        )
    return classes


def _load(path: str, records: int) -> np.ndarray | None:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    fits = isinstance(found, np.ndarray) and found.dtype == np.int64 and found.shape == (records,)
    return found if fits else None


def _labels_of(path: str, index: RecordIndex, first: int, end: int, key: str) -> np.ndarray:
    """Returns the labels of one file's records."""
    found = np.full(end - first, UNREAD, np.int64)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for i in range(first, end):
            length = int(index.lengths[i])
            if length < 0:
                continue
            part = _Part(descriptor, int(index.offsets[i]) + HEADER_BYTES, length)
            try:
                found[i - first] = next(iter(_label(part, key.encode())), UNREAD)
            except (ValueError, OverflowError):
                continue  # training will report it
    finally:
        os.close(descriptor)
    return found


class _Part:
    """Bytes of a file, read in windows on demand."""

    def __init__(self, descriptor: int, start: int, length: int):
        self._descriptor, self._start, self.length = descriptor, start, length
        self._window, self._at = b"", 0

    def get(self, start: int, end: int) -> bytes:
        """Returns the bytes from `start` to `end`, or to the record's end."""
        end = min(end, self.length)
        if start < self._at or end > self._at + len(self._window):
            size = min(max(_WINDOW, end - start), self.length - start)
            self._window = os.pread(self._descriptor, size, self._start + start)
            self._at = start
        return self._window[start - self._at : end - self._at]


def _label(part: _Part, key: bytes) -> list[int]:
    """Returns the values (at most one) under one key of a serialized Example.

    `dataloader.tfrecord.example` describes the bytes.
    """
    for start, end in _parts(part, 0, part.length, number=1):  # Features
        for entry, entry_end in _parts(part, start, end, number=1):
            for name, name_end in _parts(part, entry, entry_end, number=1):
                # An entry is a name and a value; read only the value of this name.
                if name_end - name == len(key) and part.get(name, name_end) == key:
                    features = decode_example(_wrapped(part.get(entry, entry_end)))
                    values = features.get(key.decode())
                    return [v for v in values or [] if isinstance(v, int)][:1]
    return []


def _parts(part: _Part, start: int, end: int, number: int) -> Iterator[tuple[int, int]]:
    """Yields start and end of the length-delimited fields with one number, without reading them."""
    while start < end:
        head = part.get(start, start + 20)
        tag, used = from_varint(head, 0)
        kind = tag & 7
        if kind != 2:
            raise ValueError("not a serialized Example of the usual form")
        length, used = from_varint(head, used)
        begin, start = start + used, start + used + length
        if start > end:
            raise ValueError("field past the end")
        if tag >> 3 == number:
            yield begin, start


def _wrapped(entry: bytes) -> bytes:
    """Returns an Example with only this entry in its map."""
    return field(1, field(1, entry))
