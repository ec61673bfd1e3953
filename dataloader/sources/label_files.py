"""Reads files with one class name per line. Needs no TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Sequence

from convoy.dataloader.errors import DataError
from convoy.utils.text import canonical, read_text, split_lines


def read_labels(
    data_dir: str, files: Sequence[str] = ("labels.txt", "label.labels.txt")
) -> list[str] | None:
    """Returns the class names from the first of these files that exists (TFDS writes the second).

    Raises:
        DataError, TextError: see `read_names`.
    """
    for name in files:
        path = os.path.join(data_dir, name)
        if os.path.isfile(path):
            return read_names(path, path)
    return None


def read_names(path: str, name: str) -> list[str]:
    """Returns the class names in a file that a person may have written; `name` is for errors.

    Raises:
        DataError: a line before the end is empty; this would shift all names after it.
        TextError: it is not text.
        OSError: it cannot be read.
    """
    names = [canonical(line) for line in split_lines(read_text(path, name))]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise DataError(f"{name} is empty: expected one class name per line.")
    if "" in names:
        raise DataError(
            f"{name}: line {names.index('') + 1} is empty: expected one class name per line."
        )
    return names
