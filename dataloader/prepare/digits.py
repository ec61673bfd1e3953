"""`prepare digits`: scikit-learn's handwritten digits → TFRecord shards of JPEGs.

It writes TFRecord files in the ImageNet layout (labels from 1, `image/class/text`), and beside them
a `labels.txt` with one class name per line.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from convoy.dataloader.errors import DataError
from convoy.dataloader.prepare.shards import MANIFEST, write_records
from convoy.dataloader.tfrecord.example import encode_example
from convoy.utils.extras import how_to_install
from convoy.utils.files import write_atomically

_OURS = re.compile(r"^((train|validation)-\d{5}-of-\d{5}|labels\.txt)$")


def prepare_digits(
    out: str,
    *,
    image_size: int = 48,
    validation_fraction: float = 0.2,
    seed: int = 0,
    shards: int = 4,
    classes: Sequence[int] | None = None,
    train_examples: int | None = None,
    images: str | None = None,
    overwrite: bool = False,
) -> dict[str, int]:
    """Writes scikit-learn's 1,797 handwritten digits as JPEGs in TFRecord files.

    Labels are positions in `classes`; `labels.txt` lists the digits in the same order.

    Args:
        out: folder for `train-*`, `validation-*` and `labels.txt`.
        image_size: side in pixels; the 8 x 8 originals are enlarged bicubically.
        validation_fraction: fraction of every class that goes to validation.
        seed: seed of the split and of the order in the files.
        shards: number of train files; validation goes into one file.
        classes: the digits to keep, at least two different ones; None: 0 to 9.
        train_examples: number of training images, with classes in proportion, drawn by `seed`;
            None: all.
        images: folder for the validation images as `<digit>/<number>.jpg`, or None.
        overwrite: replace the files of an earlier run in `out` and `images`.

    Returns:
        Number of examples per split, "train" and "validation".

    Raises:
        DataError: a folder is not empty, a value makes no sense, or a package is missing.
    """
    kept = list(range(10) if classes is None else classes)
    _check_values(image_size, validation_fraction, kept)
    pixels, targets = _load_digits()
    for flag, folder in (("--out", out), ("--images", images)):
        _check_empty(flag, folder, overwrite)
    jpegs = [_encode(digit, image_size) for digit in pixels]
    train, validation = _split_digits(targets, kept, validation_fraction, train_examples, seed)

    os.makedirs(out, exist_ok=True)
    if overwrite:
        _remove_records(out)
    names = [str(digit) for digit in kept]
    examples = {i: _example(jpegs[i], kept.index(targets[i]), names) for i in (*train, *validation)}
    _write_shards(out, "train", [examples[i] for i in train], min(shards, len(train)))
    _write_shards(out, "validation", [examples[i] for i in validation], 1)
    write_atomically(Path(out, "labels.txt"), "".join(f"{n}\n" for n in names))
    if images is not None:
        if overwrite:
            _remove_images(images, [str(d) for d in range(10)])
        for i in validation:
            _write_image(images, str(targets[i]), i, jpegs[i])
    return {"train": len(train), "validation": len(validation)}


def _check_values(image_size: int, validation_fraction: float, classes: Sequence[int]) -> None:
    if not 8 <= image_size <= 1024:
        raise DataError(f"--image_size must be 8 to 1024 pixels, got {image_size}.")
    if not 0 < validation_fraction < 1:
        raise DataError(f"--validation_fraction must be in (0, 1), got {validation_fraction}.")
    if len(classes) < 2 or len(set(classes)) < len(classes) or not set(classes) <= set(range(10)):
        raise DataError(f"--classes needs two or more different digits of 0 to 9, got {classes}.")


def _load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns the images, float (1797, 8, 8) in 0-16, and which digits they show, int (1797,)."""
    try:
        import PIL.Image  # noqa: F401 — `_encode` needs it: fail before anything is written
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            f"digits need the package that is missing here: {error.name}. "
            f"Install them with: {how_to_install('demo')}"
        ) from error
    digits = load_digits()
    return digits.images, digits.target


def _encode(pixels: np.ndarray, side: int) -> bytes:
    """Returns a JPEG of `side` pixels of a digit's 8 x 8 pixels in 0-16."""
    from PIL import Image

    grey = Image.fromarray(np.round(pixels * (255 / 16)).astype(np.uint8))
    large = grey.resize((side, side), Image.Resampling.BICUBIC).convert("RGB")
    buffer = io.BytesIO()
    large.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _split_digits(
    targets: np.ndarray,
    classes: Sequence[int],
    validation_fraction: float,
    train_examples: int | None,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the positions of training and validation images, with classes in proportion."""
    from sklearn.model_selection import train_test_split

    members = np.flatnonzero(np.isin(targets, classes))
    try:
        train, validation = train_test_split(
            members,
            test_size=validation_fraction,
            stratify=targets[members],
            random_state=seed % 2**32,
        )
    except ValueError as error:
        raise DataError(f"--validation_fraction {validation_fraction}: {error}") from error
    if train_examples is None:
        return train, validation
    if not len(classes) <= train_examples <= len(train):
        raise DataError(
            f"--train_examples must be from {len(classes)} (one per class) to {len(train)} (all);"
            f" got {train_examples}."
        )
    # Rank of an image in its class, scaled to 0–1: the N lowest have all classes in proportion.
    depth = np.empty(len(train))
    for digit in classes:
        same = np.flatnonzero(targets[train] == digit)
        depth[same] = (np.arange(len(same)) + 0.5) / len(same)
    chosen = np.argsort(depth, kind="stable")[:train_examples]
    return train[np.sort(chosen)], validation


def parse_classes(text: str) -> list[int]:
    """Parses a list of digits and ranges, such as `0-6` or `7,8,9` or `0-3,9`; keeps the order.

    Raises:
        DataError: it is not such a list.
    """
    digits: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d)(?:-(\d))?", part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if first > last:
            raise DataError(f"--classes {text}: write digits and ranges, such as 0-6 or 7,8,9.")
        digits += range(first, last + 1)
    return digits


def _check_empty(flag: str, folder: str | None, overwrite: bool) -> None:
    if folder is None or not os.path.exists(folder):
        return
    if not os.path.isdir(folder):
        raise DataError(f"{flag} {folder} is a file, not a folder.")
    if os.listdir(folder) and not overwrite:
        raise DataError(f"{flag} {folder} is not empty: choose another folder or add --overwrite.")


def _remove_records(folder: str) -> None:
    """Removes an earlier run's files, which this run may not write, such as a fifth shard.

    A `manifest.json` of `prepare folder` would promise other examples.
    """
    for name in os.listdir(folder):
        if _OURS.match(name) or name == MANIFEST:
            os.unlink(os.path.join(folder, name))


def _remove_images(images: str, names: Sequence[str]) -> None:
    """Removes the files of an earlier run, and nothing else that a person may keep there."""
    for name in names:
        folder = os.path.join(images, name)
        for file in os.listdir(folder) if os.path.isdir(folder) else ():
            if re.fullmatch(r"\d{4}\.jpg", file):
                os.unlink(os.path.join(folder, file))


def _example(jpeg: bytes, label: int, names: Sequence[str]) -> bytes:
    return encode_example(
        {
            "image/encoded": jpeg,
            "image/format": b"jpeg",
            "image/class/label": int(label) + 1,
            "image/class/text": names[label].encode(),
        }
    )


def _write_shards(out: str, split: str, examples: Sequence[bytes], count: int) -> None:
    for shard in range(count):
        write_records(out, f"{split}-{shard:05d}-of-{count:05d}", examples[shard::count])


def _write_image(images: str, digit: str, number: int, content: bytes) -> None:
    """Writes `<digit>/<number>.jpg` completely or not at all."""
    folder = os.path.join(images, digit)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{number:04d}.jpg")
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.chmod(temporary, 0o644)  # mkstemp's mode denies access to everyone else
    os.replace(temporary, path)
