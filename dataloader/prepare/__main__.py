"""Runs the command line `python -m convoy.dataloader.prepare`; imports only the used command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from convoy.dataloader.errors import DataError
from convoy.utils.errors import UserError
from convoy.utils.extras import missing_requirement
from convoy.utils.places import expand_home
from convoy.utils.seeds import fold_seed
from convoy.utils.text import printable, printable_output, tell

LAYOUT = "folder with TFRecord files, or with train/<class>/* and val/<class>/*; or a .csv list"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit status: 0; 1 if `verify` found bad examples; 2 if the request cannot be met; 3 if
        images were left out; 130 after Ctrl-C.
    """
    given = vars(_parser().parse_args(arguments))
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


def _recoding(given: dict[str, Any]) -> dict[str, Any]:
    from convoy.dataloader.prepare.images import Recoding

    short, quality = given.pop("resize_short"), given.pop("quality")
    if short is not None and short < 1:
        raise DataError(f"--resize_short must be at least 1 pixel, got {short}.")
    if quality is not None and not 1 <= quality <= 100:
        raise DataError(f"--quality must be 1 to 100, got {quality}.")
    return given | {"recoding": Recoding(short, quality)}


def _folder(given: dict[str, Any]) -> int:
    from convoy.dataloader.prepare.folder import prepare_folder

    return prepare_folder(**_workers(_recoding(given)))


def _imagenet(given: dict[str, Any]) -> int:
    from convoy.dataloader.prepare.imagenet import prepare_imagenet

    return prepare_imagenet(**_workers(_recoding(given)))


def _tfds(given: dict[str, Any]) -> int:
    from convoy.dataloader.prepare.tfds import prepare_tfds

    return prepare_tfds(**_workers(_recoding(given)))


def _verify(given: dict[str, Any]) -> int:
    from convoy.dataloader.prepare.verify import verify

    return verify(**_workers(given))


def _index(given: dict[str, Any]) -> int:
    from convoy.dataloader.prepare.index import make_indexes
    from convoy.dataloader.sources.tfrecord_files import all_record_files

    files = all_record_files(given["data_dir"])
    found = make_indexes(files, given["out"])
    print(f"{len(found)} index files in {os.path.dirname(found[0])}.")
    return 0


def _preview(given: dict[str, Any]) -> int:
    from convoy.dataloader.prepare.preview import preview

    if given["count"] < 1:
        raise DataError(f"--count must be at least 1, got {given['count']}.")
    return preview(**given)


def _workers(given: dict[str, Any]) -> dict[str, Any]:
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m convoy.dataloader.prepare", description="Prepare data for training."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, more: str = "") -> argparse.ArgumentParser:
        described = f"{text[0].upper()}{text[1:]}. {more}"
        return commands.add_parser(name, help=text, description=described)

    _add_digits(
        command(
            "digits",
            "write scikit-learn's 1,797 handwritten digits as TFRecord files, without a download",
        )
    )
    folder = command(
        "folder",
        "pack a folder of images, with one folder per class, into TFRecord shards",
        "Images that TensorFlow cannot decode, such as WebP and TIFF, are re-encoded as JPEG. "
        "After an interruption, the same command continues where it stopped.",
    )
    folder.add_argument(
        "--data_dir",
        required=True,
        metavar="DIR",
        help="folder with train/<class>/* and val/<class>/*, or with <class>/* only; or a .csv "
        "file with columns path and label",
    )
    folder.add_argument(
        "--validation_fraction",
        type=float,
        metavar="F",
        help="fraction of each class to hold out if there is no validation split (unset: 0.1 if "
        "there is no train folder, otherwise none)",
    )
    _add_packing(folder)
    tfds = command(
        "tfds",
        "pack a prepared TensorFlow Dataset into TFRecord shards",
        "Nothing is downloaded unless --download is given.",
    )
    tfds.add_argument("name", metavar="NAME", help="name, name/config or name/config:version")
    tfds.add_argument("--data_dir", required=True, metavar="DIR", help="TFDS's data folder")
    tfds.add_argument(
        "--download", action="store_true", help="let TFDS download the data set into it first"
    )
    _add_packing(tfds, out_required=False)
    imagenet = command(
        "imagenet",
        "pack the original ILSVRC2012 tar files into TFRecord shards",
        "Reads ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and, for the classes of the "
        "validation images, ILSVRC2012_devkit_t12.tar.gz, without unpacking them.",
    )
    imagenet.add_argument(
        "--data_dir", required=True, metavar="DIR", help="folder with the tar files"
    )
    imagenet.add_argument(
        "--val_labels",
        metavar="FILE",
        help="file with one wnid per line for the validation images, instead of the "
        "development kit",
    )
    _add_packing(imagenet)
    check = command(
        "verify",
        "read every record, decode every image and list the bad ones",
        "The exit status is 1 if there are bad ones.",
    )
    check.add_argument("--data_dir", required=True, metavar="DIR", help=LAYOUT)
    check.add_argument(
        "--dataset", default="ImageNet", metavar="NAME", help="ImageNet or tfds:NAME (%(default)s)"
    )
    check.add_argument(
        "--first_label",
        type=int,
        metavar="N",
        help="number of the first class in image/class/label; unset: 1 (for TFDS: 0)",
    )
    check.add_argument(
        "--validation_fraction",
        type=float,
        metavar="F",
        help="fraction held out from class folders without a validation split, as in training",
    )
    check.add_argument(
        "--validation_seed", type=int, default=0, metavar="N", help="as in training (%(default)s)"
    )
    check.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object")
    _add_workers(check)
    index = command("index", "write the index files (*.idx) that DALI's TFRecord reader needs")
    index.add_argument("--data_dir", required=True, metavar="DIR", help="folder of TFRecord files")
    index.add_argument(
        "--out", metavar="DIR", help="folder to write into; unset: the folder of the records"
    )
    _add_preview(
        command(
            "preview",
            "draw a contact sheet of augmented training images that names their operations",
            "The settings have the same names as in training.",
        )
    )
    return parser


def _add_preview(preview: argparse.ArgumentParser) -> None:
    preview.add_argument("--data_dir", required=True, metavar="DIR", help=LAYOUT)
    preview.add_argument(
        "--dataset", default="ImageNet", metavar="NAME", help="ImageNet or tfds:NAME (%(default)s)"
    )
    preview.add_argument(
        "--out", required=True, metavar="PATH", help="writes PATH.png and PATH.html"
    )
    preview.add_argument(
        "--count", type=int, default=24, metavar="N", help="number of images (%(default)s)"
    )
    preview.add_argument(
        "--epoch", type=int, default=0, metavar="N", help="epoch to draw, from 0 (%(default)s)"
    )
    preview.add_argument(
        "--config", metavar="FILE", help="config.yaml of a run, to use its settings"
    )
    for name, kind in _PREVIEW_SETTINGS.items():
        preview.add_argument(f"--{name}", type=kind, metavar="VALUE", help="as in training")


_PREVIEW_SETTINGS: dict[str, type] = {
    **dict.fromkeys(("augmenter_name", "autoaugmentation_name", "randaugment_space"), str),
    **dict.fromkeys(("interpolation", "random_erasing_mode"), str),
    "exif_orientation": str,
    **dict.fromkeys(("image_size", "num_layers", "seed", "num_classes", "first_label"), int),
    **dict.fromkeys(("magnitude", "magnitude_std", "translate_const", "cutout_const"), float),
    **dict.fromkeys(("random_erasing", "mixup_alpha", "cutmix_alpha", "hflip"), float),
    **dict.fromkeys(("mix_prob", "mix_switch_prob", "color_jitter"), float),
    **dict.fromkeys(("crop_area_min", "crop_area_max"), float),
    **dict.fromkeys(("crop_ratio_min", "crop_ratio_max"), float),
    **{"validation_fraction": float, "validation_seed": int},
}


def _add_digits(digits: argparse.ArgumentParser) -> None:
    digits.add_argument("--out", required=True, metavar="DIR", help="folder to write into")
    digits.add_argument(
        "--image_size",
        type=int,
        default=48,
        metavar="N",
        help="side of an image in pixels (%(default)s)",
    )
    digits.add_argument(
        "--validation_fraction",
        type=float,
        default=0.2,
        metavar="F",
        help="fraction of each class held out for validation (%(default)s)",
    )
    digits.add_argument(
        "--seed", type=int, default=0, help="seed of the split and the order (%(default)s)"
    )
    digits.add_argument(
        "--classes",
        metavar="LIST",
        default="0-9",
        help="digits to keep, such as 0-6 or 7,8,9; labels are renumbered from 0 (%(default)s)",
    )
    digits.add_argument(
        "--train_examples",
        type=int,
        metavar="N",
        help="number of training images to write, with the classes in proportion; unset: all",
    )
    digits.add_argument(
        "--images",
        metavar="DIR",
        help="also write the validation images as DIR/<digit>/<number>.jpg, to predict on",
    )
    digits.add_argument(
        "--overwrite", action="store_true", help="replace the files of an earlier run"
    )


def _add_packing(parser: argparse.ArgumentParser, out_required: bool = True) -> None:
    parser.add_argument(
        "--out", required=out_required, metavar="DIR", help="folder to write the shards into"
    )
    for split in ("train", "validation"):
        parser.add_argument(
            f"--{split}_shards",
            type=int,
            metavar="N",
            help=f"number of {split} files; unset: one per 1,250 images",
        )
    parser.add_argument(
        "--resize_short",
        type=int,
        metavar="N",
        help="shrink larger images to N pixels on their short side",
    )
    parser.add_argument(
        "--quality",
        type=int,
        metavar="Q",
        help="re-encode every image as a JPEG of this quality; unset: only images that need it, "
        "with quality 95",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the order (%(default)s)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace shards of another data set in --out"
    )
    _add_workers(parser)


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers", type=int, metavar="N", help="number of processes; unset: one per core"
    )


if __name__ == "__main__":
    sys.exit(main())
