"""Turns a list of shards into a finished folder: the part that all packing commands share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO, TypeVar

from convoy.dataloader.prepare.shards import (
    MANIFEST,
    Shard,
    check_folder,
    in_parallel,
    make_shard,
    write_manifest,
)
from convoy.dataloader.sources.source import Source
from convoy.utils.text import tell

EXIT_BAD_IMAGES = 3  # as in --mode predict: done, but not with every image
_SHOWN = 10

_T = TypeVar("_T")


def default_workers() -> int:
    """Returns the number of processes to start: the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def track(results: Iterable[_T], total: int, what: str) -> Iterator[_T]:
    """Yields the results, and draws a progress bar on stderr if that is a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        yield from bar.track(results, total, description=what)


def print_found(source: Source, file: TextIO | None = None) -> None:
    """Prints a source's contents to `file` (None: standard output), warnings to standard error."""
    tell(source.found, file or sys.stdout)
    for note in source.notes:
        tell(f"WARNING: {note}")


def pack(
    out: str,
    command: str,
    shards: Sequence[Shard],
    names: list[str],
    *,
    workers: int,
    overwrite: bool = False,
) -> int:
    """Writes the shards, `labels.txt` and `manifest.json`; prints what was done.

    Returns:
        The exit status: 0, or 3 if some images were left out.

    Raises:
        DataError: `out` has other shards and `overwrite` is not set.
    """
    check_folder(out, shards, overwrite)
    notes = list(track(in_parallel(make_shard, shards, workers), len(shards), "shards"))
    manifest = write_manifest(out, command, names, notes)
    kept = sum(note["kept"] for note in notes)
    if kept:
        print(f"{kept} of {len(shards)} shards were there already, with the right checksum.")
    return _report(out, manifest)


def _report(out: str, manifest: dict[str, Any]) -> int:
    parts = [f"{split['examples']} {name}" for name, split in manifest["splits"].items()]
    print(f"Wrote {' and '.join(parts)} images of {manifest['num_classes']} classes to {out}.")
    bad = [bad for split in manifest["splits"].values() for bad in split["bad"]]
    for one in bad[:_SHOWN]:
        print(f"left out: {one['file']}: {one['reason']}", file=sys.stderr)
    if bad:
        path = os.path.join(out, MANIFEST)
        print(f"{len(bad)} images were left out; {path} lists them all.", file=sys.stderr)
    return EXIT_BAD_IMAGES if bad else 0
