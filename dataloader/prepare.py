"""Prepares data sets: `python -m dataloader.prepare digits --out DIR`.

What is written is the ImageNet layout of TFRecord files (labels from 1, `image/class/text`), with a
`labels.txt` of one class name a line beside them.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
import tempfile
from collections.abc import Sequence

import numpy as np

from dataloader.errors import DataError

_OURS = re.compile(r"^((train|validation)-\d{5}-of-\d{5}|labels\.txt)$")


def prepare_digits(
    out: str,
    *,
    image_size: int = 48,
    validation_fraction: float = 0.2,
    seed: int = 0,
    shards: int = 4,
    images: str | None = None,
    overwrite: bool = False,
) -> dict[str, int]:
    """Writes scikit-learn's 1,797 handwritten digits as JPEGs in TFRecord files.

    Args:
        out: folder for `train-*`, `validation-*` and `labels.txt`.
        image_size: pixels; the 8 x 8 originals are enlarged bicubically.
        validation_fraction: share of every class that goes to validation.
        seed: of the split and of the order in the files.
        shards: train files; validation goes into one.
        images: folder for the validation images as `<digit>/<number>.jpg`, or None.
        overwrite: replace what an earlier run left in `out` and `images`.

    Returns:
        Number of examples per split.

    Raises:
        DataError: a folder is not empty, a value makes no sense, or a package is missing.
    """
    if not 8 <= image_size <= 1024:
        raise DataError(f"--image_size must be 8 to 1024 pixels, got {image_size}.")
    if not 0 < validation_fraction < 1:
        raise DataError(f"--validation_fraction must be in (0, 1), got {validation_fraction}.")
    try:
        from PIL import Image
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise DataError(
            f"digits need the package that is missing here: {error.name}. "
            "Install them with: pip install scikit-learn pillow"
        ) from error
    for flag, folder in (("--out", out), ("--images", images)):
        _check_empty(flag, folder, overwrite)

    def encode(pixels: np.ndarray) -> bytes:
        grey = Image.fromarray(np.round(pixels * (255 / 16)).astype(np.uint8))
        large = grey.resize((image_size, image_size), Image.Resampling.BICUBIC).convert("RGB")
        buffer = io.BytesIO()
        large.save(buffer, "JPEG", quality=95)
        return buffer.getvalue()

    digits = load_digits()
    jpegs = [encode(pixels) for pixels in digits.images]
    labels = digits.target
    try:
        train, validation = train_test_split(
            np.arange(len(labels)),
            test_size=validation_fraction,
            stratify=labels,
            random_state=seed % 2**32,
        )
    except ValueError as error:
        raise DataError(f"--validation_fraction {validation_fraction}: {error}") from error

    os.makedirs(out, exist_ok=True)
    if overwrite:  # a different number of shards would otherwise leave old ones beside the new
        for name in filter(_OURS.match, os.listdir(out)):
            os.unlink(os.path.join(out, name))
    names = [str(name) for name in digits.target_names]
    for split, members, count in (("train", train, shards), ("validation", validation, 1)):
        for shard in range(count):
            path = os.path.join(out, f"{split}-{shard:05d}-of-{count:05d}")
            _write_records(path, [(jpegs[i], labels[i], names) for i in members[shard::count]])
    _write_bytes(os.path.join(out, "labels.txt"), "".join(f"{n}\n" for n in names).encode())
    if images is not None:
        if overwrite:
            _remove_images(images, names)
        for i in validation:
            folder = os.path.join(images, names[labels[i]])
            os.makedirs(folder, exist_ok=True)
            _write_bytes(os.path.join(folder, f"{i:04d}.jpg"), jpegs[i])
    return {"train": len(train), "validation": len(validation)}


def _check_empty(flag: str, folder: str | None, overwrite: bool) -> None:
    if folder is None or not os.path.exists(folder):
        return
    if not os.path.isdir(folder):
        raise DataError(f"{flag} {folder} is a file, not a folder.")
    if os.listdir(folder) and not overwrite:
        raise DataError(f"{flag} {folder} is not empty: choose another folder or add --overwrite.")


def _remove_images(images: str, names: Sequence[str]) -> None:
    """Removes what an earlier run wrote, and nothing else that a person may keep there."""
    for name in names:
        folder = os.path.join(images, name)
        for file in os.listdir(folder) if os.path.isdir(folder) else ():
            if re.fullmatch(r"\d{4}\.jpg", file):
                os.unlink(os.path.join(folder, file))


def _example(jpeg: bytes, label: int, names: Sequence[str]) -> bytes:
    import tensorflow as tf

    def text(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    number = tf.train.Feature(int64_list=tf.train.Int64List(value=[int(label) + 1]))
    features = {
        "image/encoded": text(jpeg),
        "image/format": text(b"jpeg"),
        "image/class/label": number,
        "image/class/text": text(names[label].encode()),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def _write_records(path: str, examples: Sequence[tuple[bytes, int, Sequence[str]]]) -> None:
    import tensorflow as tf

    # Hidden until it is whole: an interrupted run leaves nothing that a loader would pick up.
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.tmp")
    with tf.io.TFRecordWriter(temporary) as writer:
        for example in examples:
            writer.write(_example(*example))
    os.replace(temporary, path)


def _write_bytes(path: str, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=".")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.chmod(temporary, 0o644)  # mkstemp's own mode shuts out everyone else
    os.replace(temporary, path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dataloader.prepare", description="Prepare data for training."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    digits = commands.add_parser(
        "digits",
        help="scikit-learn's 1,797 handwritten digits: small, ten classes, no download",
        description="Write scikit-learn's 1,797 handwritten digits as JPEGs in TFRecord files, "
        "ready for --data_dir. Takes a few seconds and downloads nothing.",
    )
    digits.add_argument("--out", required=True, metavar="DIR", help="folder to write into")
    digits.add_argument(
        "--image_size", type=int, default=48, metavar="N", help="pixels a side (%(default)s)"
    )
    digits.add_argument(
        "--validation_fraction",
        type=float,
        default=0.2,
        metavar="F",
        help="share of every class kept for validation (%(default)s)",
    )
    digits.add_argument(
        "--seed", type=int, default=0, help="of the split and the order (%(default)s)"
    )
    digits.add_argument(
        "--images",
        metavar="DIR",
        help="also write the validation images as DIR/<digit>/<number>.jpg, to predict on",
    )
    digits.add_argument(
        "--overwrite", action="store_true", help="replace what an earlier run wrote"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one sub-command; returns the exit status (2 when the request cannot be met)."""
    given = vars(_parser().parse_args(arguments))
    given.pop("command")
    out, images = given["out"], given["images"]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow's import reads it
    try:
        counts = prepare_digits(given.pop("out"), **given)
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    extra = f"; validation images in {images}" if images else ""
    print(
        f"Wrote {counts['train']} training and {counts['validation']} validation images of 10 "
        f"classes, {given['image_size']} x {given['image_size']} pixels, to {out}{extra}."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
