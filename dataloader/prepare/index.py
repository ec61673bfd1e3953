"""`prepare index`: writes the index files that DALI's TFRecord reader expects.

They lie beside the TFRecord files.

Each record has a line "offset size", where the size includes its 16 bytes of framing, as DALI's own
tfrecord2idx writes them. Damaged records have no line.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from convoy.dataloader.errors import DataError
from convoy.dataloader.tfrecord.random_access import FRAME_BYTES, index_files
from convoy.utils.files import write_atomically


def make_indexes(files: Sequence[str], folder: str | None = None) -> list[str]:
    """Writes `<file>.idx` for each file if it is missing or older than the file.

    Args:
        files: TFRecord files.
        folder: where to write; None: beside the files.

    Returns:
        The index files' names, in the order of `files`.

    Raises:
        DataError: a file is not a TFRecord file, or an index cannot be written.
    """
    found = [
        os.path.join(folder or os.path.dirname(path), os.path.basename(path) + ".idx")
        for path in files
    ]
    stale = [i for i, path in enumerate(files) if not _is_fresh(found[i], path)]
    if not stale:
        return found
    index = index_files([files[i] for i in stale])
    ends = index.ends.tolist()
    try:
        if folder:
            os.makedirs(folder, exist_ok=True)
        for i, first, end in zip(stale, [0, *ends], ends, strict=False):
            here = slice(first, end)
            good = index.lengths[here] >= 0
            table = np.stack([index.offsets[here], index.lengths[here] + FRAME_BYTES], 1)[good]
            lines = [f"{offset} {size}\n" for offset, size in table.tolist()]
            write_atomically(Path(found[i]), "".join(lines))
    except OSError as error:
        raise DataError(
            f"{error.filename}: cannot be written ({error.strerror}). Name a folder with --out."
        ) from error
    return found


def _is_fresh(index: str, path: str) -> bool:
    try:
        if os.stat(index).st_mtime_ns < os.stat(path).st_mtime_ns:
            return False
        with open(index, "rb") as file:
            file.seek(max(0, os.path.getsize(index) - 64))
            lines = file.read().split(b"\n")
        offset, size = map(int, lines[-2].split())
        return offset + size == os.path.getsize(path)
    except (OSError, ValueError, IndexError):
        return False
