"""Finds the file names of examples: of images in folders, and those stored in records."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from convoy.dataloader.errors import DataError, RecordError
from convoy.dataloader.sources.source import Source
from convoy.dataloader.tfrecord.example import decode_example

# Keys of the ImageNet builders and of TensorFlow Datasets.
KEYS = ("image/filename", "file_name", "image/file_name", "filename")
_THREADS = 16


def file_names(source: Source, indices: Iterable[int]) -> list[str | None]:
    """Returns the name of each example's file; None if a record does not store one.

    It reads nothing from image folders, but each record completely.

    Raises:
        DataError: a record is damaged.
    """

    def name(i: int) -> str | None:
        file, offset = source.locate(i)
        if offset is None:
            return file
        try:
            features = decode_example(source.read(np.array([i]))[0])
        except (RecordError, ValueError) as error:
            raise DataError(f"{source.describe(i)}: {error}.") from error
        for key in KEYS:
            value = (features.get(key) or [None])[0]
            if isinstance(value, bytes):
                return value.decode("utf-8", "surrogateescape")
        return None

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(name, map(int, indices)))
