"""The commands of `python -m convoy.dataloader.prepare` and their flags."""

from __future__ import annotations

import argparse
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
LAYOUT = "folder with TFRecord files, or with train/<class>/* and val/<class>/*; or a .csv list"


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands; `command` holds the name of the chosen one."""
    parser = argparse.ArgumentParser(
        prog="python -m convoy.dataloader.prepare", description="Prepare data for training."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_digits(commands)
    _add_folder(commands)
    _add_tfds(commands)
    _add_imagenet(commands)
    _add_verify(commands)
    _add_index(commands)
    _add_preview(commands)
    return parser


def _command(commands: Commands, name: str, text: str, more: str = "") -> argparse.ArgumentParser:
    """Adds a command; `text` is its line in the list of commands, and `more` follows in its own."""
    described = f"{text[0].upper()}{text[1:]}. {more}"
    return commands.add_parser(name, help=text, description=described)


def _add_digits(commands: Commands) -> None:
    digits = _command(
        commands,
        "digits",
        "write scikit-learn's 1,797 handwritten digits as TFRecord files, without a download",
    )
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


def _add_folder(commands: Commands) -> None:
    folder = _command(
        commands,
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


def _add_tfds(commands: Commands) -> None:
    tfds = _command(
        commands,
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


def _add_imagenet(commands: Commands) -> None:
    imagenet = _command(
        commands,
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


def _add_verify(commands: Commands) -> None:
    check = _command(
        commands,
        "verify",
        "read every record, decode every image and list the bad ones",
        "The exit status is 1 if there are bad ones; with --strict also if some are read "
        "differently by other programs.",
    )
    _add_data(check)
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
    check.add_argument(
        "--strict",
        action="store_true",
        help="also list images from which other programs read other pixels",
    )
    check.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object")
    _add_workers(check)


def _add_index(commands: Commands) -> None:
    index = _command(
        commands, "index", "write the index files (*.idx) that DALI's TFRecord reader needs"
    )
    index.add_argument("--data_dir", required=True, metavar="DIR", help="folder of TFRecord files")
    index.add_argument(
        "--out", metavar="DIR", help="folder to write into; unset: the folder of the records"
    )


def _add_preview(commands: Commands) -> None:
    preview = _command(
        commands,
        "preview",
        "draw a contact sheet of augmented training images that names their operations",
        "The settings are those of training; main.py --help=hflip, for example, explains one.",
    )
    _add_data(preview)
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


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data_dir", required=True, metavar="DIR", help=LAYOUT)
    parser.add_argument(
        "--dataset", default="ImageNet", metavar="NAME", help="ImageNet or tfds:NAME (%(default)s)"
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
