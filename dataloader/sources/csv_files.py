"""Reads lists of images: CSV files as spreadsheets and pandas write them. No TensorFlow."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from convoy.dataloader.errors import DataError
from convoy.dataloader.sources.splits import SPLIT_NAMES, plain_name
from convoy.utils.text import canonical, read_text, some, split_lines

TEST = "test"
# Column names, in lower case.
PATHS = ("path", "file", "filename", "image", "filepath", "file_name", "file_path", "image_path")
LABELS = ("label", "class", "target")
SPLITS = ("split",)
_DELIMITERS = ",;\t"
# The first line that tells Excel the delimiter.
_TOLD = re.compile(rf'\s*"?sep=(?P<delimiter>[{_DELIMITERS}])"?[ ,;\t]*\r?\n', re.IGNORECASE)


class Row(NamedTuple):
    """One image of a list.

    Attributes:
        file, line: its place.
        written: the path as written there.
        path: the file that it refers to.
        label: its class, see `utils.text.canonical`.
        split: "train", "validation", or `TEST`; None if the list has no such column.
    """

    file: str
    line: int
    written: str
    path: str
    label: str
    split: str | None

    @property
    def where(self) -> str:
        """Returns file and line, for messages."""
        return f"{self.file}, line {self.line}"


def split_named(name: str) -> str | None:
    """Returns the split that a file's name or a row refers to: "train", "validation" or `TEST`."""
    word = canonical(os.path.splitext(name)[0]).lower()
    for known in (word, plain_name(word)):
        for split, rows in SPLIT_NAMES.items():
            for row, found in zip(rows, (split, TEST), strict=False):
                if known in row:
                    return found
    return None


def read_rows(path: str) -> list[Row]:
    """Returns the rows of a list.

    Raises:
        DataError: a column is missing or named twice, a row has no path, no label, more or fewer
            fields than the first, or an unknown split.
        TextError: it is not text.
        OSError: it cannot be read.
    """
    text = read_text(path)
    told = _TOLD.match(text)
    delimiter = told["delimiter"] if told else _delimiter(text)
    rows = _parsed(path, text, delimiter)
    if told:
        next(rows)
    first, names = next(rows, (1, []))
    where, header = f"{path}, line {first}", [canonical(name).lower() for name in names]
    files, labels = (_needed(where, names, header, known) for known in (PATHS, LABELS))
    splits = _column(where, names, header, SPLITS)
    folder, found = os.path.dirname(path), []
    named, called = cache(canonical), cache(split_named)  # there are few distinct ones
    for line, row in rows:
        where = f"{path}, line {line}"
        if len(row) != len(header):
            raise DataError(
                f"{where} has {len(row)} fields, and the first line names {len(header)}. Write a "
                'field that holds a comma in "quotes".'
            )
        if not row[files].strip():
            raise DataError(f"{where} has no {names[files].strip()}.")
        if not (label := named(row[labels])):
            raise DataError(f"{where} ({row[files]}) has no {names[labels].strip()}.")
        split = None
        if splits is not None:
            split = called(row[splits] + ".")
            if not row[splits].strip():
                raise DataError(
                    f"{where} ({row[files]}) has no split: write train, val or test there, or "
                    "remove the column."
                )
            if split is None:
                raise DataError(
                    f"{where} ({row[files]}): the split {row[splits]!r} is not train, val or test."
                )
        found.append(Row(path, line, row[files], _image(folder, row[files]), label, split))
    if not found:
        raise DataError(f"{path} names no images.")
    return found


def _image(folder: str, written: str) -> str:
    """Returns the file for a path in a list in `folder`.

    A leading `~` means a home folder, unless a file beside the list has that name.
    """
    image = os.path.normpath(os.path.join(folder, written))
    if written.startswith("~") and not os.path.lexists(image):
        return os.path.normpath(os.path.join(folder, os.path.expanduser(written)))
    return image


def _parsed(path: str, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows that are not empty, each with the line on which it begins."""
    lines = [line + "\n" for line in split_lines(text)]
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
    line = 1
    try:
        for row in reader:
            if any(field.strip() for field in row):
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {line} is not a row of a CSV file ({error}).") from error


def _delimiter(text: str) -> str:
    """Returns the delimiter with which the first line has the needed columns."""
    first = next((line for line in split_lines(text) if line.strip()), "")
    for delimiter in _DELIMITERS:
        names = {canonical(name.strip(' "')).lower() for name in first.split(delimiter)}
        if names & set(PATHS) and names & set(LABELS):
            return delimiter
    return max(_DELIMITERS, key=first.count)


def _column(
    where: str, names: Sequence[str], header: Sequence[str], known: Sequence[str]
) -> int | None:
    """Returns the number of the column with one of the names `known`; None if there is none.

    Raises:
        DataError: there are several.
    """
    found = [i for i, name in enumerate(header) if name in known]
    if len(found) > 1:
        which = " and ".join(repr(names[i]) for i in found)
        raise DataError(f"{where}: the columns {which} may mean the same. Rename one.")
    return found[0] if found else None


def _needed(where: str, names: Sequence[str], header: Sequence[str], known: Sequence[str]) -> int:
    """As `_column`; raises DataError if there is none."""
    column = _column(where, names, header, known)
    if column is not None:
        return column
    raise DataError(
        f"{where} must name the columns, one of them {', '.join(known[:-1])} or {known[-1]}; it has"
        f" {some([repr(name) for name in names]) or 'none'}."
    )
