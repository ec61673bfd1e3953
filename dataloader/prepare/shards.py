"""Writes TFRecord shards: shuffled, in parallel, completely or not at all, and resumable.

A shard is written under a hidden name and renamed when it is complete. A small hidden note beside
it then records its inputs and its SHA-256. A later run keeps every shard whose note and bytes agree
with what it would write, so running the command again continues a killed run. When all shards are
there, the notes become `manifest.json`.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from convoy.dataloader.errors import DataError, unreadable
from convoy.dataloader.prepare.images import BadImage, Recoding, recode
from convoy.dataloader.tfrecord import crc
from convoy.dataloader.tfrecord.example import decode_example, encode_example
from convoy.utils import strict_json
from convoy.utils.files import naming, write_atomically

MANIFEST = "manifest.json"
IMAGES_PER_SHARD = 1250
_FORMAT = "convoy-shard-1"
_OURS = re.compile(r"^(train|validation)-\d{5}-of-\d{5}$")
_READ_BYTES = 1 << 20

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Item:
    """One image to pack: the place of its bytes, and its metadata.

    Attributes:
        path: a file; with `size` the bytes from `offset` on, otherwise all of it.
        label: class, counted from 0; -1 if the label is in the record (see `keys`).
        name: goes into `image/filename`, and into messages.
        keys: names of image and label if the bytes are a tf.train.Example.
    """

    path: str
    name: str
    label: int
    offset: int = 0
    size: int | None = None
    keys: tuple[str, str] | None = None


@dataclass(frozen=True)
class Shard:
    """One file to write; self-contained, so that any process can write it."""

    folder: str
    file: str
    items: list[Item]
    names: list[str]  # class names
    synsets: list[str] | None = None
    recoding: Recoding = field(default_factory=Recoding)

    def plan(self) -> str:
        """Returns a hash of all that decides the shard's bytes, except the images' own bytes."""
        return hashlib.sha256(strict_json.dumps([_FORMAT, asdict(self)]).encode()).hexdigest()


def shuffled(items: Sequence[Item], seed: int) -> list[Item]:
    """Returns a permutation that depends only on the items' names and the seed."""
    items = sorted(items, key=lambda item: (item.path, item.offset))
    key = np.array([seed % 2**64, 0], np.uint64)
    order = np.argsort(np.random.Philox(key=key).random_raw(len(items)), kind="stable")
    return [items[i] for i in order]


def plan_split(
    folder: str,
    split: str,
    items: Sequence[Item],
    names: list[str],
    *,
    shards: int | None = None,
    seed: int = 0,
    **options: Any,
) -> list[Shard]:
    """Distributes a split's images evenly over shards; by default one per 1,250 images.

    Raises:
        DataError: there are fewer images than shards.
    """
    count = shards or -(-len(items) // IMAGES_PER_SHARD)
    if not 1 <= count <= len(items):
        raise DataError(
            f"--{split}_shards {count}: the {split} split has {len(items)} images, and each shard "
            "needs at least one."
        )
    order = shuffled(items, seed)
    return [
        Shard(folder, f"{split}-{i:05d}-of-{count:05d}", order[i::count], names, **options)
        for i in range(count)
    ]


def write_records(folder: str, file: str, payloads: Iterable[bytes]) -> dict[str, Any]:
    """Writes a TFRecord file completely or not at all.

    Returns:
        `records`, `bytes` and `sha256` of the file.
    """
    temporary = os.path.join(folder, f".{file}.{os.getpid()}.tmp")
    path, digest, records, size = os.path.join(folder, file), hashlib.sha256(), 0, 0
    try:
        with open(temporary, "wb") as output:
            for payload in payloads:
                length = len(payload).to_bytes(8, "little")
                record = b"".join([length, _checksum(length), payload, _checksum(payload)])
                digest.update(record)
                with naming(path):
                    output.write(record)
                records, size = records + 1, size + len(record)
            with naming(path):
                output.flush()
                os.fsync(output.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    return {"records": records, "bytes": size, "sha256": digest.hexdigest()}


def _checksum(data: bytes) -> bytes:
    return crc.masked(data).to_bytes(4, "little")


def make_shard(shard: Shard) -> dict[str, Any]:
    """Writes a shard, or keeps the existing one; returns its note. Runs in any process."""
    note_path = os.path.join(shard.folder, f".{shard.file}.json")
    plan = shard.plan()
    note = _kept(shard, note_path, plan)
    if note is not None:
        return note | {"kept": True}
    bad: list[dict[str, str]] = []
    counts = np.zeros(len(shard.names), int)

    def payloads() -> Iterator[bytes]:
        for item in shard.items:
            try:
                payload, label = _example(item, shard)
            except BadImage as error:
                bad.append({"file": item.name, "reason": str(error)})
                continue
            counts[label] += 1
            yield payload

    note = write_records(shard.folder, shard.file, payloads())
    note |= {"file": shard.file, "plan": plan, "bad": bad, "classes": counts.tolist()}
    write_atomically(Path(note_path), strict_json.dumps(note))
    return note | {"kept": False}


def _kept(shard: Shard, note_path: str, plan: str) -> dict[str, Any] | None:
    """Returns an earlier run's note of a shard if its bytes are the same, otherwise None."""
    path = os.path.join(shard.folder, shard.file)
    try:
        note = _note(shard, note_path)
        if note["plan"] == plan and os.path.getsize(path) == note["bytes"]:
            return note if _sha256(path) == note["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _note(shard: Shard, note_path: str) -> dict[str, Any]:
    if os.path.exists(note_path):
        with open(note_path, encoding="utf-8") as file:
            return json.load(file)
    with open(os.path.join(shard.folder, MANIFEST), encoding="utf-8") as file:
        split = json.load(file)["splits"][shard.file.split("-")[0]]
    note = {"file": shard.file, **split["shards"][shard.file]}
    return note | {"bad": [bad for bad in split["bad"] if bad["shard"] == shard.file]}


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _example(item: Item, shard: Shard) -> tuple[bytes, int]:
    try:
        with open(item.path, "rb") as file:
            file.seek(item.offset)
            data = file.read() if item.size is None else file.read(item.size)
    except OSError as error:
        raise BadImage(str(unreadable(error))) from error
    if item.size is not None and len(data) < item.size:
        raise BadImage(f"{item.path} ends before it does")
    label = item.label
    if item.keys is not None:
        data, label = _from_record(data, item.keys)
        if not 0 <= label < len(shard.names):
            raise BadImage(f"label {label} is outside the {len(shard.names)} classes")
    image, kind = recode(data, shard.recoding)
    features: dict[str, bytes | int] = {
        "image/encoded": image,
        "image/format": kind.encode(),
        "image/filename": item.name.encode(errors="surrogateescape"),
        "image/class/label": label + 1,
        "image/class/text": shard.names[label].encode(),
    }
    if shard.synsets is not None:
        features["image/class/synset"] = shard.synsets[label].encode()
    return encode_example(features), label


def _from_record(payload: bytes, keys: tuple[str, str]) -> tuple[bytes, int]:
    try:
        features = decode_example(payload)
        (image,), (label,) = features[keys[0]] or [], features[keys[1]] or []
    except (ValueError, KeyError) as error:
        raise BadImage(f"not an Example with one {keys[0]} and one {keys[1]}") from error
    if not isinstance(image, bytes) or not isinstance(label, int):
        raise BadImage(f"{keys[0]} or {keys[1]} is of the wrong type")
    return image, label


def check_folder(
    folder: str, shards: Sequence[Shard], names: Sequence[str], overwrite: bool
) -> None:
    """Makes `folder`; clears shards of another set with `overwrite`, and raises otherwise.

    Raises:
        DataError: there are such shards, shards of the same names with other images or settings,
            or files of the user's in the places of `labels.txt` and `manifest.json`, and
            `overwrite` is not set; or `folder` is a file.
    """
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise DataError(f"--out {folder} is a file, not a folder.")
    os.makedirs(folder, exist_ok=True)
    ours = {shard.file for shard in shards}
    others = [name for name in sorted(os.listdir(folder)) if _OURS.match(name) and name not in ours]
    if others and not overwrite:
        raise DataError(
            f"--out {folder} holds shards of another set ({others[0]}, …): choose another folder "
            "or add --overwrite."
        )
    if not overwrite and (changed := _packed_otherwise(folder, shards)):
        raise DataError(
            f"--out {folder} holds other images, or packed with other settings ({changed[0]}, …): "
            "choose another folder or add --overwrite."
        )
    theirs = [name for name in ("labels.txt", MANIFEST) if _is_theirs(folder, name, names)]
    if theirs and not overwrite:
        raise DataError(
            f"--out {folder} holds a {theirs[0]} that prepare did not write: choose another folder "
            "or add --overwrite, which replaces it."
        )
    for name in others:
        os.unlink(os.path.join(folder, name))
    for name in os.listdir(folder):
        if name.endswith(".tmp") and _OURS.match(name[1:].split(".")[0]):
            os.unlink(os.path.join(folder, name))  # left by a killed run


def _packed_otherwise(folder: str, shards: Sequence[Shard]) -> list[str]:
    """Returns the shards that a finished run wrote with another plan."""
    try:
        with open(os.path.join(folder, MANIFEST), encoding="utf-8") as file:
            splits = json.load(file)["splits"].values()
        plans = {name: note["plan"] for split in splits for name, note in split["shards"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return [one.file for one in shards if plans.get(one.file) not in (None, one.plan())]


def _is_theirs(folder: str, name: str, names: Sequence[str]) -> bool:
    """Returns whether a file in the place of one of ours is the user's."""
    try:
        text = Path(folder, name).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return False
    if name == MANIFEST:
        return f'"format": "{_FORMAT}"' not in text
    # A killed run has perhaps written its names, and not yet the manifest.
    return text != _labels_text(names) and not os.path.exists(os.path.join(folder, MANIFEST))


def _labels_text(names: Sequence[str]) -> str:
    return "".join(f"{name}\n" for name in names)


def write_manifest(
    folder: str, command: str, names: list[str], notes: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Writes `labels.txt` and `manifest.json`, and removes the notes that became part of it."""
    splits: dict[str, Any] = {}
    for note in sorted(notes, key=lambda note: note["file"]):
        name = note["file"].split("-")[0]
        split = splits.setdefault(
            name, {"examples": 0, "classes": [0] * len(names), "shards": {}, "bad": []}
        )
        split["examples"] += note["records"]
        split["classes"] = np.add(split["classes"], note["classes"]).tolist()
        kept = ("records", "bytes", "sha256", "plan", "classes")
        split["shards"][note["file"]] = {key: note[key] for key in kept}
        split["bad"] += [bad | {"shard": note["file"]} for bad in note["bad"]]
    manifest = {"format": _FORMAT, "command": command, "num_classes": len(names), "splits": splits}
    write_atomically(Path(folder, "labels.txt"), _labels_text(names))
    write_atomically(Path(folder, MANIFEST), strict_json.dumps(manifest, indent=1) + "\n")
    for note in notes:
        note_path = os.path.join(folder, f".{note['file']}.json")
        if os.path.exists(note_path):
            os.unlink(note_path)
    return manifest


def in_parallel(
    do: Callable[[_Task], _Result], tasks: Sequence[_Task], workers: int
) -> Iterator[_Result]:
    """Yields the results of `do` over `tasks` as they arrive, from `workers` processes."""
    if min(workers, len(tasks)) <= 1:
        yield from map(do, tasks)
        return
    # Do not fork: the parent may have threads, and a child would inherit their locks.
    context = multiprocessing.get_context("spawn")
    waiting = iter(tasks)
    with ProcessPoolExecutor(workers, context, initializer=_ignore_interrupts) as pool:
        try:
            running = {pool.submit(do, task) for task in islice(waiting, 2 * workers)}
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(do, task) for task in islice(waiting, len(done))}
                for future in done:
                    yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when Ctrl-C stops the work
