"""Writes predictions: a printed table, JSON lines, CSV, Parquet, a page to look at.

No TensorFlow. It keeps only results that are still to be written.
"""

from __future__ import annotations

import csv
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np

from convoy.utils import strict_json
from convoy.utils.errors import ConfigError
from convoy.utils.extras import how_to_install
from convoy.utils.files import Remote, naming, try_lock
from convoy.utils.tables import table_console
from convoy.utils.text import UTF8, printable

FORMATS = ("table", "jsonl", "csv", "parquet", "gallery")
# Rows of the printed table, spread evenly over the images, and as many failed ones; files have all.
TABLE_ROWS = 30
ENDINGS = (".jsonl", ".csv", ".parquet", ".html")
PARQUET_ROWS = 4096  # per row group
NOT_FINITE = "the model's answer is not a number, as after a training that diverged"


@dataclass
class Prediction:
    """A possible class of an image."""

    name: str
    index: int
    probability: float


@dataclass
class Labelled:
    """The result for a file.

    Attributes:
        path: the path as given.
        predictions: most likely first; empty if it failed, or if none was likely enough.
        error: why it could not be read, or NOT_FINITE, or None.
        thumbnail: a small JPEG, if requested.
    """

    path: str
    predictions: list[Prediction] = field(default_factory=list)
    error: str | None = None
    thumbnail: bytes | None = None

    @property
    def trouble(self) -> str:
        """Returns a word or two for an error."""
        return "no answer" if self.error == NOT_FINITE else "unreadable"


def predict_formats(text: str) -> list[str]:
    """Returns the formats in `--predict_formats`.

    Raises:
        ConfigError: one does not exist, or its package is not installed.
    """
    formats = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise ConfigError(
            f"--predict_formats {text}: choose from {', '.join(FORMATS)}, with commas between them"
        )
    if "parquet" in formats and find_spec("pyarrow") is None:
        remedy = how_to_install("parquet")
        raise ConfigError(f"--predict_formats parquet needs the package pyarrow: {remedy}")
    return formats


class Output(AbstractContextManager):
    """An output that receives results one by one.

    Its file gets its name when the last result is written; until then it has the ending `.part`. So
    a prediction that does not come to its end leaves the results of an earlier one as they are.

    Attributes:
        format: its name in `FORMATS`.
        path: the file it writes, or None.
        replaces: whether it replaces an earlier file.
    """

    format = ""
    path: Path | Remote | None = None
    replaces = False

    def write(self, item: Labelled) -> None:
        """Writes one more result."""
        raise NotImplementedError

    def finish(self) -> None:
        """Writes the remaining results."""

    def publish(self) -> None:
        """Gives the complete file its name."""
        if self.path is not None:
            complete(self.path)

    def release(self) -> None:
        """Closes the file, so that another prediction may write it."""

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        with naming(self.path):
            try:
                self.finish()
                if error is None:
                    self.publish()
            finally:
                self.release()


def part_of(path: Path | Remote) -> Path | Remote:
    """Returns where to write a file until it is complete.

    In an object store that is the file itself: it appears there when it is closed.
    """
    return path if isinstance(path, Remote) else _aside(path)


def open_part(path: Path | Remote, mode: str = "w", **options: Any) -> IO[Any]:
    """Opens `part_of(path)`, emptied, for this process only.

    Raises:
        ConfigError: another process is writing it.
    """
    if isinstance(path, Remote):
        return path.open(mode, **options)
    part = _aside(path)
    while True:
        number = os.open(part, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            ours = try_lock(number, part)
        except FileNotFoundError:  # it was published before we had the lock
            os.close(number)
            continue
        if ours is False:
            os.close(number)
            raise ConfigError(
                f"another prediction is writing {path}: wait for its end, or give another --output"
            )
        os.ftruncate(number, 0)
        return os.fdopen(number, mode, **options)


def complete(path: Path | Remote) -> None:
    """Gives a file that was written to `part_of(path)` its name."""
    if isinstance(path, Path):
        os.replace(_aside(path), path)


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


class JsonLines(Output):
    """Writes one object per line: path, predictions (class, index, probability), error or null."""

    format = "jsonl"

    def __init__(self, path: Path | Remote) -> None:
        self.path = path
        self._file = open_part(path, **UTF8)

    def write(self, item: Labelled) -> None:
        """Writes a line with path, predictions and error."""
        predictions = [
            {"class": p.name, "index": p.index, "probability": p.probability}
            for p in item.predictions
        ]
        row = {"path": item.path, "predictions": predictions, "error": item.error}
        self._file.write(strict_json.dumps(row, ensure_ascii=False) + "\n")

    def finish(self) -> None:
        """Writes what is still in memory."""
        self._file.flush()

    def release(self) -> None:
        """Closes the file."""
        self._file.close()


class Csv(Output):
    """Writes one row per image: path, class_1, probability_1, …, error."""

    format = "csv"

    def __init__(self, path: Path | Remote, columns: int) -> None:
        self.path, self._columns = path, columns
        self._file = open_part(path, newline="", **UTF8)
        self._csv = csv.writer(self._file)
        numbers = range(1, columns + 1)
        names = [f"{kind}_{i}" for i in numbers for kind in ("class", "probability")]
        self._csv.writerow(["path", *names, "error"])

    def write(self, item: Labelled) -> None:
        """Writes a row; a file without predictions has empty cells."""
        cells = [c for p in item.predictions for c in (p.name, f"{p.probability:.6f}")]
        cells += [""] * (2 * self._columns - len(cells))
        self._csv.writerow([item.path, *cells, item.error or ""])

    def finish(self) -> None:
        """Writes what is still in memory."""
        self._file.flush()

    def release(self) -> None:
        """Closes the file."""
        self._file.close()


class Parquet(Output):
    """Writes the columns of the CSV plus index_1, …, with nulls for missing values."""

    format = "parquet"

    def __init__(self, path: Path | Remote, columns: int) -> None:
        import pyarrow
        from pyarrow import parquet

        self.path = path
        types = {"class": pyarrow.string(), "index": pyarrow.int32()}
        types["probability"] = pyarrow.float32()
        numbered = [(f"{k}_{i}", t) for i in range(1, columns + 1) for k, t in types.items()]
        text = pyarrow.string()
        self._schema = pyarrow.schema([("path", text), *numbered, ("error", text)])
        self._bytes = open_part(path, "wb")
        self._file = parquet.ParquetWriter(self._bytes, self._schema)
        self._rows: list[dict[str, Any]] = []

    def write(self, item: Labelled) -> None:
        """Adds a row, and writes a group of them if it is full."""
        error = None if item.error is None else _encodable(item.error)
        row: dict[str, Any] = {"path": _encodable(item.path), "error": error}
        for i, p in enumerate(item.predictions, 1):
            row |= {f"class_{i}": p.name, f"index_{i}": p.index, f"probability_{i}": p.probability}
        self._rows.append(row)
        if len(self._rows) >= PARQUET_ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow

        if self._rows:
            self._file.write_table(pyarrow.Table.from_pylist(self._rows, self._schema))
            self._rows = []

    def finish(self) -> None:
        """Writes the last rows."""
        self._flush()
        self._file.close()
        self._bytes.flush()

    def release(self) -> None:
        """Closes the file."""
        self._bytes.close()


class Table(Output):
    """Prints some of the rows when all are complete."""

    format = "table"

    def __init__(self, count: int, where: str) -> None:
        self._count, self._where = count, where
        self._spread = set(np.linspace(0, count - 1, TABLE_ROWS).round().astype(int).tolist())
        self._seen = self._failed = 0
        self._shown: list[Labelled] = []

    def write(self, item: Labelled) -> None:
        """Counts a file, and keeps it if the table will show it."""
        self._failed += item.error is not None
        if self._seen in self._spread or (item.error and self._failed <= TABLE_ROWS):
            self._shown.append(item)
        self._seen += 1

    def finish(self) -> None:
        """Prints the table."""
        from rich.table import Table
        from rich.text import Text

        if not self._seen:
            return  # an error came first
        table = Table("image", "class", "probability", "next", box=None, pad_edge=False)
        table.columns[0].overflow = table.columns[3].overflow = "fold"
        table.columns[2].justify = "right"
        for item in self._shown:
            file = Text(shown_name(item.path, self._where))
            if item.error:
                error = Text(printable(item.error))
                table.add_row(file, Text(item.trouble, style="red"), "", error)
            elif not item.predictions:
                table.add_row(file, Text("unsure", style="dim"), "", "")
            else:
                first, *others = item.predictions
                following = ", ".join(f"{p.name} {100 * p.probability:.1f}%" for p in others[:2])
                percent = f"{100 * first.probability:.1f}%"
                table.add_row(file, Text(first.name), percent, Text(following))
        console = table_console()
        console.print(table)
        if len(self._shown) < self._seen:
            console.print(f"… {self._seen - len(self._shown)} more")


def one_line(item: Labelled) -> str:
    """Formats a result as one line of text; escapes characters that would break the line."""
    answer = ", ".join(f"{p.name} {100 * p.probability:.1f}%" for p in item.predictions)
    if item.error:
        answer = f"{item.trouble}: {printable(item.error)}"
    return f"{printable(item.path)}: {answer or 'unsure'}"


def _encodable(text: str) -> str:
    """Escapes bytes that UTF-8 cannot encode, as in the other files."""
    return text.encode(**UTF8).decode()


def shown_name(path: str, where: str | None) -> str:
    """Returns a path for people: relative to the searched folder, if there is one."""
    return printable(os.path.relpath(path, where) if where and Path(where).is_dir() else path)
