"""The TFRecord byte format, read at random: index, cached descriptors, and the keys of an Example.

A record is `uint64 length | uint32 masked crc32c(length) | payload | uint32 masked
crc32c(payload)`, little-endian. Nothing here needs TensorFlow: it has no operation that reads one
record at an offset, and random access is what lets any position of an epoch be reached without
replaying the ones before.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from dataloader.errors import DataError, RecordError

try:
    import google_crc32c
except ImportError:  # optional: only the payload check needs it
    google_crc32c = None

HEADER_BYTES = 12
FRAME_BYTES = 16  # header and the payload's checksum
_INDEX_FORMAT = "convoy-index-1"
_CHECK_EVERY = 65536  # headers between two checks, so that a file of rubbish is found out early


def _crc32c_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
    return table.astype(np.uint32)


_TABLE = _crc32c_table()


def masked_crc32c(data: np.ndarray) -> np.ndarray:
    """The TFRecord checksum of each row.

    Args:
        data: uint8 `(n, k)`; the rows are `n` messages of `k` bytes.

    Returns:
        uint32 `(n,)`. CRC-32C (Castagnoli, RFC 3720), rotated and offset as TFRecord files store
        it.
    """
    crc = np.full(len(data), 0xFFFFFFFF, np.uint32)
    for column in data.T:
        crc = _TABLE[(crc ^ column) & 0xFF] ^ (crc >> np.uint32(8))
    crc = ~crc
    return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)


def _check_headers(path: str, headers: list[bytes], offsets: list[int]) -> None:
    """Raises DataError at the first header whose length does not match its checksum."""
    if not headers:
        return
    table = np.frombuffer(b"".join(headers), np.uint8).reshape(-1, HEADER_BYTES)
    stored = np.ascontiguousarray(table[:, 8:]).view("<u4")[:, 0]
    wrong = np.flatnonzero(masked_crc32c(table[:, :8]) != stored)
    if not wrong.size:
        return
    first = int(wrong[0])
    if offsets[first] == 0 and headers[first][:2] == b"\x1f\x8b":
        advice = "The file is gzip-compressed: decompress it with gunzip."
    elif offsets[first] == 0:
        advice = "This is not a TFRecord file: move it out of the folder or write it again."
    else:
        advice = "The file is damaged from there on: copy or write it again."
    raise DataError(f"{path}: no valid TFRecord header at byte {offsets[first]}. {advice}")


def walk(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Finds the records of one file by stepping from header to header.

    Returns:
        int64 `(n,)` byte offsets of the headers, int64 `(n,)` payload lengths in bytes.

    Raises:
        DataError: a header's checksum is wrong, or the file ends inside a record.
    """
    offsets: list[int] = []
    lengths: list[int] = []
    headers: list[bytes] = []
    position = checked = 0
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        while position < size:
            header = os.pread(descriptor, HEADER_BYTES, position)
            length = int.from_bytes(header[:8], "little")
            end = position + FRAME_BYTES + length
            whole = len(header) == HEADER_BYTES
            if whole:
                headers.append(header)
                offsets.append(position)
                lengths.append(length)
            if not whole or end > size:
                _check_headers(path, headers, offsets[checked:])
                raise DataError(
                    f"{path}: the record at byte {position} is cut short: it needs "
                    f"{FRAME_BYTES + length if whole else FRAME_BYTES} bytes and the file ends "
                    f"after {size - position}. The file was probably not copied or written "
                    "completely: copy or write it again."
                )
            if len(headers) == _CHECK_EVERY:
                _check_headers(path, headers, offsets[checked:])
                headers, checked = [], len(offsets)
            position = end
        _check_headers(path, headers, offsets[checked:])
    finally:
        os.close(descriptor)
    return np.array(offsets, np.int64), np.array(lengths, np.int64)


@dataclass(frozen=True)
class RecordIndex:
    """Where every record of a list of files is.

    Attributes:
        offsets: int64 `(records,)`, header position in its file, bytes.
        lengths: int64 `(records,)`, payload length, bytes.
        ends: int64 `(files,)`, running total of records per file.
    """

    offsets: np.ndarray
    lengths: np.ndarray
    ends: np.ndarray

    def fits(self, sizes: Sequence[int]) -> bool:
        """Whether this index can belong to files of these byte sizes (a cache may be damaged)."""
        if any(a.ndim != 1 or a.dtype != np.int64 for a in (self.offsets, self.lengths, self.ends)):
            return False
        if len(self.ends) != len(sizes) or len(self.offsets) != len(self.lengths):
            return False
        counts = np.diff(self.ends, prepend=0)
        if counts.min(initial=0) < 0 or counts.sum() != len(self.offsets):
            return False
        limit = np.repeat(np.asarray(sizes, np.int64), counts)
        inside = self.offsets + self.lengths + FRAME_BYTES <= limit
        return bool(np.all(inside & (self.offsets >= 0) & (self.lengths >= 0)))


def _cache_folder() -> str:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(home, "convoy", "index")


def _cache_path(files: Sequence[str], stats: Sequence[os.stat_result]) -> str:
    digest = hashlib.sha256(_INDEX_FORMAT.encode())
    for path, stat in zip(files, stats, strict=True):
        digest.update(f"{os.path.realpath(path)}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return os.path.join(_cache_folder(), digest.hexdigest() + ".npz")


def _load_cached(path: str, files: Sequence[str], sizes: Sequence[int]) -> RecordIndex | None:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            index = RecordIndex(stored["offsets"], stored["lengths"], stored["ends"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return index if index.fits(sizes) and _edges_agree(files, index) else None


def _edges_agree(files: Sequence[str], index: RecordIndex) -> bool:
    """Whether each file's first and last record are where the index says.

    Size and time can both survive a rewrite (`touch -r`, `rsync --times`, coarse clocks).
    """
    first = 0
    for path, end in zip(files, index.ends.tolist(), strict=True):
        with open(path, "rb") as file:
            for i in {first, end - 1} if end > first else ():
                file.seek(int(index.offsets[i]))
                if int.from_bytes(file.read(8), "little") != index.lengths[i]:
                    return False
        first = end
    return True


def _store_cached(path: str, index: RecordIndex) -> None:
    temporary = None
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            np.savez(file, offsets=index.offsets, lengths=index.lengths, ends=index.ends)
        os.replace(temporary, path)
    except OSError:  # a read-only home or a full disk costs the next start a few seconds, no more
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def index_files(files: Sequence[str], *, threads: int = 8) -> RecordIndex:
    """Indexes TFRecord files, or takes their index from the cache in the user's home.

    The cache's name is a hash of every file's real path, size and modification time. A stale or
    damaged cache cannot mix up examples: a read compares each record's own header with the index.

    Raises:
        DataError: a file cannot be opened, is cut short, or is not a TFRecord file.
    """
    try:
        stats = [os.stat(path) for path in files]
        cached = _cache_path(files, stats)
        index = _load_cached(cached, files, [stat.st_size for stat in stats])
        if index is None:
            # Threads hide a network disk's latency; on a local one the loop itself is the cost.
            with ThreadPoolExecutor(max(1, min(threads, len(files)))) as pool:
                found = list(pool.map(walk, files))
            index = RecordIndex(
                np.concatenate([offsets for offsets, _ in found] or [np.zeros(0, np.int64)]),
                np.concatenate([lengths for _, lengths in found] or [np.zeros(0, np.int64)]),
                np.cumsum([len(offsets) for offsets, _ in found], dtype=np.int64),
            )
            _store_cached(cached, index)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}).") from error
    return index


class _Descriptor:
    """An open file that closes when its last user lets go: eviction cannot hurt a reader."""

    def __init__(self, path: str):
        self.number = -1
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self):
        if self.number >= 0:
            os.close(self.number)


class RecordReader:
    """Reads single records of indexed files by `os.pread`. Safe to use from several threads."""

    def __init__(self, files: Sequence[str], index: RecordIndex, *, max_open: int = 128):
        self._files = list(files)
        self._index = index
        self._max_open = max_open
        self._open: OrderedDict[int, _Descriptor] = OrderedDict()
        self._lock = threading.Lock()

    def locate(self, i: int) -> tuple[str, int]:
        """File name and byte offset of record `i`."""
        return self._files[self._file_of(i)], int(self._index.offsets[i])

    def read(self, i: int) -> bytes:
        """The payload of record `i`.

        Raises:
            RecordError: the file is gone, was changed after indexing, or (where google_crc32c is
                installed) the payload does not match its checksum.
        """
        offset = int(self._index.offsets[i])
        length = int(self._index.lengths[i])
        try:
            frame = os.pread(self._descriptor(i).number, length + FRAME_BYTES, offset)
        except OSError as error:
            raise RecordError(f"cannot be read ({error.strerror})") from error
        if len(frame) != length + FRAME_BYTES or int.from_bytes(frame[:8], "little") != length:
            raise RecordError(
                "the file was changed after it was indexed: start again, and if that does not "
                f"help remove {_cache_folder()} first"
            )
        payload = frame[HEADER_BYTES:-4]
        if google_crc32c is not None:
            crc = google_crc32c.value(payload)
            masked = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
            if masked != int.from_bytes(frame[-4:], "little"):
                raise RecordError("the record's checksum is wrong: its bytes were damaged")
        return payload

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


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError("bad varint")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, position
        shift += 7


def _length_delimited(data: bytes, wanted: int) -> list[bytes]:
    """The length-delimited protobuf fields numbered `wanted` of one message."""
    found = []
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        kind = tag & 7
        if kind == 0:
            _, position = _varint(data, position)
            continue
        if kind not in (1, 2, 5):
            raise ValueError("bad wire type")
        length, position = _varint(data, position) if kind == 2 else ({1: 8, 5: 4}[kind], position)
        if position + length > len(data):
            raise ValueError("field past the end")
        if kind == 2 and tag >> 3 == wanted:
            found.append(data[position : position + length])
        position += length
    return found


def example_keys(payload: bytes) -> list[str]:
    """The feature names of a serialized `tf.train.Example`, sorted, without TensorFlow.

    Raises:
        ValueError: the bytes are not a serialized Example.
    """
    keys = []
    for features in _length_delimited(payload, 1):
        for entry in _length_delimited(features, 1):
            name = _length_delimited(entry, 1)
            keys.append(name[0].decode("utf-8") if name else "")
    return sorted(keys)
