"""Packs images into a finished folder of shards: the part that all packing commands share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO, TypeVar

from convoy.dataloader.prepare.images import Recoding
from convoy.dataloader.prepare.shards import (
    MANIFEST,
    Item,
    Shard,
    check_folder,
    in_parallel,
    make_shard,
    plan_split,
    write_manifest,
)
from convoy.dataloader.sources.source import Source
from convoy.utils.text import tell

EXIT_BAD_IMAGES = 3  # as in --mode predict: done, but not with every image
_SHOWN = 10

_T = TypeVar("_T")


@dataclass(frozen=True)
class Packing:
    """How images are packed: what the flags of every packing command say.

    Attributes:
        train_shards: number of training files; None: one per 1,250 images.
        validation_shards: the same for validation.
        recoding: how to change images; by default, only where TensorFlow cannot decode them.
        seed: seed of the order.
        workers: number of processes.
        overwrite: replace another set in the folder.
    """

    train_shards: int | None = None
    validation_shards: int | None = None
    recoding: Recoding = field(default_factory=Recoding)
    seed: int = 0
    workers: int = 1
    overwrite: bool = False


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
    splits: Mapping[str, Sequence[Item]],
    names: list[str],
    packing: Packing,
    synsets: list[str] | None = None,
) -> int:
    """Writes the shards of all splits, `labels.txt` and `manifest.json`; prints what was done.

    Args:
        out: folder to write into.
        command: goes into the manifest.
        splits: the images of "train" and of "validation", or of one of them.
        names: class names.
        packing: how.
        synsets: the wnid of each class, if records should hold it.

    Returns:
        The exit status: 0, or 3 if some images were left out.

    Raises:
        DataError: a split has fewer images than shards, or `out` has other shards or the user's
            files and `overwrite` is not set.
    """
    counts = {"train": packing.train_shards, "validation": packing.validation_shards}
    how: dict[str, Any] = {"seed": packing.seed, "recoding": packing.recoding, "synsets": synsets}
    shards: list[Shard] = []
    for split, items in splits.items():
        shards += plan_split(out, split, items, names, shards=counts[split], **how)
    check_folder(out, shards, names, packing.overwrite)
    notes = list(track(in_parallel(make_shard, shards, packing.workers), len(shards), "shards"))
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
