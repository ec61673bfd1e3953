"""Runs the command line `python -m convoy.dataloader.prepare`; imports only the used command."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from convoy.dataloader.errors import DataError
from convoy.dataloader.prepare.flags import make_parser
from convoy.utils.errors import UserError
from convoy.utils.extras import missing_requirement
from convoy.utils.machine import device
from convoy.utils.places import expand_home, spare_checkpoints
from convoy.utils.seeds import fold_seed
from convoy.utils.text import printable, printable_output, tell


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit status: 0; 1 if `verify` found bad examples; 2 if the request cannot be met; 3 if
        images were left out; 130 after Ctrl-C.
    """
    given = vars(make_parser().parse_args(arguments))
    try:
        given = _as_meant(given)
    except UserError as error:
        tell(f"error: {error}")
        return 2
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # must be set before TensorFlow is imported
    run = _COMMANDS[given.pop("command")]
    printable_output()
    try:
        return run(given)
    except UserError as error:
        tell(f"error: {error}")
        return 2
    except OSError as error:
        place = "" if error.filename is None else f"{printable(os.fsdecode(error.filename))}: "
        tell(f"error: {place}{error.strerror or error}")
        return 2
    except ModuleNotFoundError as error:
        if not (text := missing_requirement(error)):
            raise
        tell(f"error: {text}")
        return 2
    except KeyboardInterrupt:
        print(
            "interrupted; run the same command again to continue where this one stopped",
            file=sys.stderr,
        )
        return 130


_PATHS = ("data_dir", "out", "images", "val_labels", "config")
_WRITTEN = {"out", "images"}


def _as_meant(given: dict[str, Any]) -> dict[str, Any]:
    """Expands `~` in paths, and maps the seed to a number that every generator accepts.

    Raises:
        PlaceError, DataError: this is not possible.
    """
    paths = {
        name: expand_home(given[name], f"--{name}")
        for name in _PATHS
        if given.get(name) is not None
    }
    for name in _WRITTEN & paths.keys():
        spare_checkpoints(paths[name], f"--{name}")
    if (seed := given.get("seed")) is not None:
        try:
            seed = fold_seed(seed)
        except ValueError as error:
            raise DataError(f"--seed {error}") from error
    return given | paths | ({} if seed is None else {"seed": seed})


def _digits(given: dict[str, Any]) -> int:
    from convoy.dataloader.prepare.digits import parse_classes, prepare_digits

    given["classes"] = parse_classes(given["classes"])
    out, images = given["out"], given["images"]
    counts = prepare_digits(**given)
    extra = f"; validation images in {images}" if images else ""
    size, classes = given["image_size"], len(given["classes"])
    print(
        f"Wrote {counts['train']} training and {counts['validation']} validation images of "
        f"{classes} classes, {size} x {size} pixels, to {out}{extra}."
    )
    return 0


def _with_packing(given: dict[str, Any]) -> dict[str, Any]:
    """Gathers the flags of packing in `packing`, and checks them.

    Raises:
        DataError: one is out of range.
    """
    from convoy.dataloader.prepare.images import Recoding
    from convoy.dataloader.prepare.pack import Packing

    short, quality = given.pop("resize_short"), given.pop("quality")
    if short is not None and short < 1:
        raise DataError(f"--resize_short must be at least 1 pixel, got {short}.")
    if quality is not None and not 1 <= quality <= 100:
        raise DataError(f"--quality must be 1 to 100, got {quality}.")
    given = _with_workers(given) | {"recoding": Recoding(short, quality)}
    packing = Packing(**{field.name: given.pop(field.name) for field in fields(Packing)})
    return given | {"packing": packing}


def _folder(given: dict[str, Any]) -> int:
    from convoy.dataloader.prepare.folder import prepare_folder

    return prepare_folder(**_with_packing(given))


def _imagenet(given: dict[str, Any]) -> int:
    from convoy.dataloader.prepare.imagenet import prepare_imagenet

    return prepare_imagenet(**_with_packing(given))


def _tfds(given: dict[str, Any]) -> int:
    from convoy.dataloader.prepare.tfds import prepare_tfds

    return prepare_tfds(**_with_packing(given))


def _verify(given: dict[str, Any]) -> int:
    from convoy.dataloader.prepare.verify import verify

    return verify(**_with_workers(given))


def _index(given: dict[str, Any]) -> int:
    from convoy.dataloader.prepare.index import make_indexes
    from convoy.dataloader.sources.tfrecord_files import all_record_files

    files = all_record_files(given["data_dir"])
    found = make_indexes(files, given["out"])
    print(f"{len(found)} index files in {os.path.dirname(found[0])}.")
    return 0


def _preview(given: dict[str, Any]) -> int:
    device.import_tensorflow()
    from convoy.dataloader.prepare.preview import preview

    if given["count"] < 1:
        raise DataError(f"--count must be at least 1, got {given['count']}.")
    return preview(**given)


def _with_workers(given: dict[str, Any]) -> dict[str, Any]:
    from convoy.dataloader.prepare.pack import default_workers

    if given["workers"] is not None and given["workers"] < 1:
        raise DataError(f"--workers must be at least 1, got {given['workers']}.")
    return given | {"workers": given["workers"] or default_workers()}


_COMMANDS = {
    "digits": _digits,
    "folder": _folder,
    "tfds": _tfds,
    "imagenet": _imagenet,
    "verify": _verify,
    "index": _index,
    "preview": _preview,
}


if __name__ == "__main__":
    sys.exit(main())
