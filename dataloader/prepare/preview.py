"""`prepare preview`: a contact sheet of training images as the network will see them, ops named.

The images come out of the real `Loader`. What was done to each is drawn again from its seed, and
the names are believed only if doing just that gives the same pixels.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convoy.dataloader.errors import DataError
from convoy.dataloader.prepare.pack import print_found
from convoy.utils.pages import write_page
from convoy.utils.text import read_text

if TYPE_CHECKING:
    from PIL.Image import Image

    from convoy.dataloader.loader import Loader
    from convoy.dataloader.options import InputOptions
    from convoy.dataloader.sources import Source

# Flags and keys of a run's config.yaml that have another name in InputOptions, or are half of one.
_RENAMED = {"augmenter_name": "augmenter", "autoaugmentation_name": "policy"}
_RENAMED |= {"randaugment_space": "space"}
# Training's, where InputOptions has another.
_DEFAULTS = {"augmenter_name": "autoaugment", "exif_orientation": "apply"}
_PAIRS = {"crop_area": ("crop_area_min", "crop_area_max")}
_PAIRS |= {"crop_ratio": ("crop_ratio_min", "crop_ratio_max")}
_CAPTION_LINES = 5
_LINE = 12  # pixels


@dataclass
class Example:
    """One tile: the image as training sees it, the whole original, and what was done."""

    image: Image
    original: Image
    lines: list[str]


def preview(
    data_dir: str,
    out: str,
    *,
    dataset: str = "ImageNet",
    count: int = 24,
    epoch: int = 0,
    config: str | None = None,
    **settings: Any,
) -> int:
    """Writes `<out>.png` and `<out>.html`, which needs no other file.

    Args:
        count: images to show: the first ones of the epoch's order.
        config: a run's config.yaml, whose settings of the input are taken; of progressive training
            those of the last stage.
        settings: flags as training names them; None where unset. They override `config`.

    Returns:
        0.

    Raises:
        DataError: there is no data, the settings cannot work, or an image cannot be read.
    """
    given = _DEFAULTS | (_read_config(config) if config else {})
    given |= {name: value for name, value in settings.items() if value is not None}
    if config and "image_size" not in given:
        raise DataError(f"--config {config} leaves the size to the model: give --image_size.")
    examples, options = training_examples(data_dir, dataset, given, count, epoch, print_found)
    stem = os.path.splitext(out)[0] if out.endswith((".png", ".html")) else out
    os.makedirs(os.path.dirname(stem) or ".", exist_ok=True)
    _sheet(examples).save(stem + ".png")
    _write_page(stem + ".html", examples, options)
    size = options.image_size
    print(
        f"Wrote {stem}.png and {stem}.html: {len(examples)} training images of epoch {epoch}, "
        f"{size} x {size} pixels."
    )
    return 0


def training_examples(
    data_dir: str,
    dataset: str,
    settings: dict[str, Any],
    count: int,
    epoch: int,
    tell: Callable[[Source], None] | None = None,
) -> tuple[list[Example], InputOptions]:
    """The first images of an epoch's order as training sees them, and the settings of the input.

    Args:
        settings: flags as training names them, those that are set; others than the input's too.
        tell: see `dataloader.sources.find_source`.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from convoy.dataloader.held_out import division
    from convoy.dataloader.loader import Loader
    from convoy.dataloader.options import InputOptions
    from convoy.dataloader.sources import find_source

    held_out = division(settings.get("validation_fraction"), settings.get("validation_seed") or 0)
    source = find_source(data_dir, "train", dataset, settings.get("first_label"), tell, held_out)
    classes = settings.get("num_classes") or source.num_classes or 1000
    given = _options(settings | {"num_classes": classes})
    try:
        options = InputOptions(**given | {"batch_size": min(count, source.num_examples)})
        loader = Loader(source, options, training=True)
    except ValueError as error:
        raise DataError(f"preview: {error}") from error
    return _examples(loader, epoch), options


def _read_config(path: str) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(read_text(path, f"--config {path}"))
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"--config {path}: cannot be read ({error}).") from error
    if not isinstance(content, dict):
        raise DataError(f"--config {path}: expected settings, one a line.")
    if "base" in content:
        raise DataError(
            f"--config {path} is a recipe built on another: give the config.yaml that a run leaves "
            "in its model_dir, where all settings are."
        )
    given = {name: value for name, value in content.items() if value is not None}
    given.setdefault("exif_orientation", "ignore")  # of a run made before there was the flag
    if "train_image_size" in given:
        given["image_size"] = given["train_image_size"]
    return given


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """Training's settings as fields of InputOptions; those it does not know are not the input's."""
    from convoy.dataloader.options import InputOptions

    known = {field.name: field.default for field in fields(InputOptions)}
    found = {_RENAMED.get(name, name): value for name, value in given.items()}
    for name, halves in _PAIRS.items():
        found[name] = tuple(
            given.get(half, default) for half, default in zip(halves, known[name], strict=True)
        )
    unwanted = ("steps_per_epoch", "eval_crop", "batch_size", "augment_on")
    return {name: value for name, value in found.items() if name in known and name not in unwanted}


def _examples(loader: Loader, epoch: int) -> list[Example]:
    from PIL import Image

    images, labels, weights = (part.numpy() for part in next(iter(loader.batches(epoch))))
    indices, seeds = loader.drawn(epoch, 0)
    examples = []
    for i in np.flatnonzero(weights):
        pixels = np.clip(np.round(images[i]), 0, 255).astype(np.uint8)
        original, lines = _explain(loader, int(indices[i]), seeds[i], pixels)
        name = _label(loader, labels[i])
        tile = Image.fromarray(pixels)
        examples.append(Example(tile, Image.fromarray(original), [name, *lines]))
    return examples


def _label(loader: Loader, label: np.ndarray) -> str:
    def name(number: int) -> str:
        names = loader.class_names
        return names[number] if names else f"class {number}"

    if label.ndim == 0:
        return name(int(label))
    present = [int(number) for number in np.argsort(-label, kind="stable") if label[number] > 0]
    if len(present) == 1:
        return name(present[0])
    return " + ".join(f"{100 * label[number]:.0f} % {name(number)}" for number in present)


def _explain(
    loader: Loader, index: int, seeds: np.ndarray, pixels: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """The original, and lines that say what was done to it; checked against the pixels."""
    import tensorflow as tf

    from convoy.dataloader import decode
    from convoy.dataloader.augment import apply_choice
    from convoy.dataloader.decoders import decode_image
    from convoy.dataloader.policies import IDENTITY, OPS

    options, source = loader.options, loader.source
    label = 0 if source.labels is None else int(source.labels[index])
    encoded, _ = source.parse(source.read(np.array([index]))[0], label)
    original = decode_image(encoded, options.turn).numpy()
    uniforms = tf.random.stateless_uniform([decode.UNIFORMS], seeds[0], alg="philox")
    area, ratio = options.crop_area, options.crop_ratio
    window = decode.crop_window(tf.constant(original.shape[:2]), uniforms, area, ratio).numpy()
    share = window[2] * window[3] / (original.shape[0] * original.shape[1])
    flipped = options.hflip > 0 and float(uniforms[-1]) < options.hflip
    lines = [f"crop {100 * share:.0f} %" + (", flipped" if flipped else "")]
    augment = loader.augmenter
    image = decode.random_crop_decode(
        encoded,
        seeds[0],
        options.image_size,
        area=area,
        ratio=ratio,
        interpolation=options.interpolation,
        hflip=options.hflip,
        turn=options.turn,
    )
    if augment is not None and augment.choose is not None:
        choice = augment.choose(tf.constant(seeds[1]))
        image = apply_choice(image, choice)
        for op, argument in zip(choice.ops.numpy(), choice.arguments.numpy(), strict=True):
            if OPS[op] != IDENTITY:
                lines.append(OPS[op] + (f" {argument:.3g}" if argument else ""))
    if loader.mixes:
        return original, lines  # the label tells what was mixed; the pixels are no longer its own
    if not (image.numpy() == pixels).all():
        if not options.random_erasing:
            raise RuntimeError(
                f"{source.describe(index)}: the operations named ({', '.join(lines)}) do not give "
                "the image that the loader gave. This is a mistake in Convoy: please report it."
            )
        lines.append("Erase")
    return original, lines


def _sheet(examples: list[Example]) -> Image:
    """All tiles with their captions as one picture, about as wide as high."""
    from PIL import Image, ImageDraw

    side = max(128, examples[0].image.width)
    height = side + _LINE * _CAPTION_LINES + 8
    columns = max(1, round((len(examples) * height / side) ** 0.5))
    rows = -(-len(examples) // columns)
    sheet = Image.new("RGB", (columns * (side + 8) + 8, rows * height + 8), "white")
    draw = ImageDraw.Draw(sheet)
    for i, example in enumerate(examples):
        x, y = 8 + i % columns * (side + 8), 8 + i // columns * height
        sheet.paste(example.image, (x, y))
        for k, line in enumerate(example.lines[:_CAPTION_LINES]):
            place = (x, y + example.image.height + 2 + _LINE * k)
            plain = line.encode("latin-1", "replace").decode("latin-1")  # what every font has
            draw.text(place, plain[: side // 6], fill="black")
    return sheet


def _write_page(path: str, examples: list[Example], options: Any) -> None:
    def picture(image: Image) -> str:
        stream = io.BytesIO()
        image.save(stream, "PNG")
        return base64.b64encode(stream.getvalue()).decode()

    def tile(example: Example) -> dict[str, Any]:
        original = example.original.copy()
        original.thumbnail((options.image_size, options.image_size))
        name, *done = example.lines
        pictures = {"png": picture(example.image), "original": picture(original)}
        return pictures | {"name": name, "done": done}

    shown = ("image_size", "augmenter", "policy", "num_layers", "magnitude", "hflip", "crop_area")
    shown += ("crop_ratio", "random_erasing", "mixup_alpha", "cutmix_alpha", "seed")
    write_page(
        Path(path),
        "preview.html.j2",
        size=options.image_size,
        settings=[(name, getattr(options, name)) for name in shown],
        tiles=[tile(example) for example in examples],
    )
