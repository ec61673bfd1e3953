"""The file names of examples: of images in folders, and those that records remember."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from convoy.dataloader.errors import DataError, RecordError
from convoy.dataloader.sources.source import Source
from convoy.dataloader.tfrecord.example import decode_example

# The ImageNet builders' key, and those that TensorFlow Datasets uses.
KEYS = ("image/filename", "file_name", "image/file_name", "filename")
_THREADS = 16


def file_names(source: Source, indices: Iterable[int]) -> list[str | None]:
    """The name of each example's file, as far as it is known; None where a record keeps none.

    Of image folders nothing is read; of records, each whole one.

    Raises:
        DataError: a record is damaged.
    """

    def name(i: int) -> str | None:
        file, offset = source.locate(i)
        if offset is None:
            return file
        try:
            features = decode_example(source.read([i])[0])
        except (RecordError, ValueError) as error:
            raise DataError(f"{source.describe(i)}: {error}.") from error
        for key in KEYS:
            value = (features.get(key) or [None])[0]
            if isinstance(value, bytes):
                return value.decode("utf-8", "surrogateescape")
        return None

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(name, map(int, indices)))
