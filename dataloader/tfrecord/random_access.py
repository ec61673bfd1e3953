"""Reads TFRecord files at random positions, with an index and cached descriptors.

A record is `uint64 length | uint32 masked crc32c(length) | payload | uint32 masked
crc32c(payload)`, little-endian. This module does not use TensorFlow, which has no operation that
reads one record at an offset. With random access a run can start at any position of an epoch
without replaying earlier records.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convoy.dataloader.errors import DataError, RecordError, unreadable
from convoy.dataloader.tfrecord import crc
from convoy.utils.places import cache_folder

HEADER_BYTES = 12
FRAME_BYTES = 16  # header and the payload's checksum
_INDEX_FORMAT = "convoy-index-2"
_CHECK_EVERY = 65536  # headers between two checks, so that a file of rubbish is detected early
_SEARCH_BYTES = 1 << 22


def walk(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Finds the records of one file by stepping from header to header.

    If a header is damaged or the file ends inside a record, it searches for the next good header.
    The part between is a hole, which counts as one unreadable record.

    Returns:
        int64 `(n,)` byte offsets of the headers, int64 `(n,)` payload lengths in bytes. The length
        of a hole is minus its size in bytes.

    Raises:
        DataError: the file has no valid header.
    """
    offsets: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        position = 0
        while position < size:
            found, sizes, position = _good_run(descriptor, position, size)
            offsets.append(found)
            lengths.append(sizes)
            if position < size:
                after = _next_header(descriptor, position + 1, size)
                if position == 0 and after == size:
                    _check_start(path, os.pread(descriptor, HEADER_BYTES, 0))
                offsets.append(np.array([position]))
                lengths.append(np.array([position - after]))
                position = after
    finally:
        os.close(descriptor)
    nothing = [np.zeros(0, np.int64)]
    return np.concatenate(offsets or nothing), np.concatenate(lengths or nothing)


def _check_start(path: str, header: bytes) -> None:
    """Raises if a file has no valid header at all; a single cut record is a hole."""
    if len(header) == HEADER_BYTES and _valid_headers([header]):
        return
    if header[:2] == b"\x1f\x8b":
        advice = "The file is gzip-compressed: decompress it with gunzip."
    elif header.startswith(b"PAR1"):
        advice = "The file is Parquet, which is not read: save its images into class folders."
    elif header.startswith((b"PK\3\4", b"Rar!", b"7z\xbc\xaf")):
        advice = "The file is an archive: unpack it."
    else:
        advice = "This is not a TFRecord file: move it out of the folder or write it again."
    raise DataError(f"{path}: no valid TFRecord header in it. {advice}")


def _good_run(descriptor: int, start: int, size: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Reads whole records with valid headers from `start` on.

    Returns offsets, lengths, and their end.
    """
    offsets: list[int] = []
    lengths: list[int] = []
    headers: list[bytes] = []
    position, checked = start, 0
    while True:
        header = os.pread(descriptor, HEADER_BYTES, position) if position < size else b""
        length = int.from_bytes(header[:8], "little")
        whole = len(header) == HEADER_BYTES and position + FRAME_BYTES + length <= size
        if whole:
            headers.append(header)
            offsets.append(position)
            lengths.append(length)
            position += FRAME_BYTES + length
        if not whole or len(headers) == _CHECK_EVERY:
            valid = _valid_headers(headers)
            if valid < len(headers) or not whole:
                count = checked + valid
                ends = offsets[count] if valid < len(headers) else position
                return (
                    np.array(offsets[:count], np.int64),
                    np.array(lengths[:count], np.int64),
                    ends,
                )
            headers, checked = [], len(offsets)


def _valid_headers(headers: list[bytes]) -> int:
    """Returns how many leading headers have a length that matches its checksum."""
    if not headers:
        return 0
    table = np.frombuffer(b"".join(headers), np.uint8).reshape(-1, HEADER_BYTES)
    stored = np.ascontiguousarray(table[:, 8:]).view("<u4")[:, 0]
    wrong = np.flatnonzero(crc.masked_rows(table[:, :8]) != stored)
    return int(wrong[0]) if wrong.size else len(headers)


def _next_header(descriptor: int, start: int, size: int) -> int:
    """Returns where the next whole record with a valid header begins, or `size`."""
    while start + FRAME_BYTES <= size:
        chunk = np.frombuffer(os.pread(descriptor, _SEARCH_BYTES, start), np.uint8)
        places = max(0, len(chunk) - HEADER_BYTES + 1)
        # No file has 2^40 bytes, so a length ends in three zero bytes; and its checksum is not
        # zero.
        zeros = [chunk[k : k + places] == 0 for k in range(5, 8)]
        checksum = np.bitwise_or.reduce([chunk[k : k + places] for k in range(8, 12)])
        likely = np.flatnonzero(np.logical_and.reduce(zeros) & (checksum != 0))
        rows = chunk[likely[:, None] + np.arange(HEADER_BYTES)]
        stored = np.ascontiguousarray(rows[:, 8:]).view("<u4")[:, 0]
        lengths = np.ascontiguousarray(rows[:, :8]).view("<u8")[:, 0].astype(np.int64)
        fits = start + likely + FRAME_BYTES + lengths <= size
        good = likely[fits & (crc.masked_rows(rows[:, :8]) == stored)]
        if good.size:
            return start + int(good[0])
        if len(chunk) < _SEARCH_BYTES:
            break
        start += places
    return size


@dataclass(frozen=True)
class RecordIndex:
    """The position of every record in a list of files.

    Attributes:
        offsets: int64 `(records,)`, header position in its file, bytes.
        lengths: int64 `(records,)`, payload length, bytes; negative for a hole (see `walk`).
        ends: int64 `(files,)`, running total of records per file.
    """

    offsets: np.ndarray
    lengths: np.ndarray
    ends: np.ndarray

    def fits(self, sizes: Sequence[int]) -> bool:
        """Returns whether this index can belong to files of these sizes in bytes.

        An index from a cache may be damaged.
        """
        if any(a.ndim != 1 or a.dtype != np.int64 for a in (self.offsets, self.lengths, self.ends)):
            return False
        if len(self.ends) != len(sizes) or len(self.offsets) != len(self.lengths):
            return False
        counts = np.diff(self.ends, prepend=0)
        if counts.min(initial=0) < 0 or counts.sum() != len(self.offsets):
            return False
        limit = np.repeat(np.asarray(sizes, np.int64), counts)
        whole = np.where(self.lengths < 0, -self.lengths, self.lengths + FRAME_BYTES)
        return bool(np.all((self.offsets >= 0) & (self.offsets + whole <= limit)))

    def holes(self) -> list[int]:
        """Returns the numbers of the records that are holes."""
        return np.flatnonzero(self.lengths < 0).tolist()


def index_folder() -> Path:
    """Returns the folder for cached indexes and lists of files."""
    return cache_folder("index")


def cache_path(
    files: Sequence[str], stats: Sequence[os.stat_result], content: str, ending: str
) -> str:
    """Returns the cache path for data about these files; it changes if the files change."""
    digest = hashlib.sha256(content.encode())
    for path, stat in zip(files, stats, strict=True):
        digest.update(f"{os.path.realpath(path)}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return str(index_folder() / (digest.hexdigest() + ending))


def _load_cached(path: str, files: Sequence[str], sizes: Sequence[int]) -> RecordIndex | None:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            index = RecordIndex(stored["offsets"], stored["lengths"], stored["ends"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return index if index.fits(sizes) and _edges_agree(files, index) else None


def _edges_agree(files: Sequence[str], index: RecordIndex) -> bool:
    """Returns whether each file's first and last record are where the index says.

    A rewrite can keep both size and time (`touch -r`, `rsync --times`, coarse clocks).
    """
    first = 0
    for path, end in zip(files, index.ends.tolist(), strict=True):
        with open(path, "rb") as file:
            for i in {first, end - 1} if end > first else ():
                if index.lengths[i] < 0:
                    continue
                file.seek(int(index.offsets[i]))
                if int.from_bytes(file.read(8), "little") != index.lengths[i]:
                    return False
        first = end
    return True


def store_cached(path: str, content: bytes) -> None:
    """Writes a file of the cache completely or not at all."""
    temporary = None
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError:  # a read-only home or a full disk only costs the next start a few seconds
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def index_files(files: Sequence[str], *, threads: int = 8) -> RecordIndex:
    """Indexes TFRecord files, or reads their index from the cache in the user's home.

    The cache's name is a hash of every file's real path, size and modification time. A stale or
    damaged cache cannot mix up examples: a read compares each record's own header with the index.

    Raises:
        DataError: a file cannot be opened, is cut short, or is not a TFRecord file.
    """
    try:
        stats = [os.stat(path) for path in files]
        cached = cache_path(files, stats, _INDEX_FORMAT, ".npz")
        index = _load_cached(cached, files, [stat.st_size for stat in stats])
        if index is None:
            # Threads hide a network disk's latency; on a local disk the loop itself is the cost.
            with ThreadPoolExecutor(max(1, min(threads, len(files)))) as pool:
                found = list(pool.map(walk, files))
            index = RecordIndex(
                np.concatenate([offsets for offsets, _ in found] or [np.zeros(0, np.int64)]),
                np.concatenate([lengths for _, lengths in found] or [np.zeros(0, np.int64)]),
                np.cumsum([len(offsets) for offsets, _ in found], dtype=np.int64),
            )
            stored = io.BytesIO()
            np.savez(stored, offsets=index.offsets, lengths=index.lengths, ends=index.ends)
            store_cached(cached, stored.getvalue())
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}).") from error
    return index


class _Descriptor:
    """An open file that closes when its last user releases it.

    So its removal from the cache cannot break a reader.
    """

    def __init__(self, path: str):
        self.number = -1
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


class RecordReader:
    """Reads single records of indexed files by `os.pread`. Safe to use from several threads."""

    def __init__(self, files: Sequence[str], index: RecordIndex, *, max_open: int = 128):
        self._files = list(files)
        self._index = index
        self._max_open = max_open
        self.checked = crc.FAST  # whether `read` checks payloads against their checksums
        self._open: OrderedDict[int, _Descriptor] = OrderedDict()
        self._lock = threading.Lock()

    def locate(self, i: int) -> tuple[str, int]:
        """Returns file name and byte offset of record `i`."""
        return self._files[self._file_of(i)], int(self._index.offsets[i])

    def payload_of(self, i: int) -> tuple[str, int, int]:
        """Returns file name, byte offset and length of record `i`'s payload."""
        path, offset = self.locate(i)
        return path, offset + HEADER_BYTES, int(self._index.lengths[i])

    def read(self, i: int) -> bytes:
        """Returns the payload of record `i`.

        Raises:
            RecordError: the file is gone, was changed after indexing, or (if google_crc32c is
                installed) the payload does not match its checksum.
        """
        offset = int(self._index.offsets[i])
        length = int(self._index.lengths[i])
        if length < 0:
            raise RecordError(self._describe_hole(i))
        try:
            frame = os.pread(self._descriptor(i).number, length + FRAME_BYTES, offset)
        except OSError as error:
            raise unreadable(error) from error
        if len(frame) != length + FRAME_BYTES or int.from_bytes(frame[:8], "little") != length:
            raise RecordError(
                "the file was changed after it was indexed: start again, and if that does not "
                f"help remove {index_folder()} first"
            )
        payload = frame[HEADER_BYTES:-4]
        if self.checked and crc.masked(payload) != int.from_bytes(frame[-4:], "little"):
            raise RecordError("the record's checksum is wrong: its bytes were damaged")
        return payload

    def _describe_hole(self, i: int) -> str:
        start, size = int(self._index.offsets[i]), -int(self._index.lengths[i])
        if start + size >= os.stat(self._files[self._file_of(i)]).st_size:
            what = f"the file is cut short inside a record, {size} bytes after its beginning"
        else:
            what = f"the record's header is damaged; the next good one is {size} bytes further on"
        return f"{what}. Copy or write the file again"

    def _file_of(self, i: int) -> int:
        return int(np.searchsorted(self._index.ends, i, side="right"))

    def _descriptor(self, i: int) -> _Descriptor:
        number = self._file_of(i)
        with self._lock:
            if number in self._open:
                self._open.move_to_end(number)
            else:
                self._open[number] = _Descriptor(self._files[number])
                if len(self._open) > self._max_open:
                    self._open.popitem(last=False)
            return self._open[number]
