"""Shows training images as the network sees them, with the augmentation drawn for each."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from convoy.dataloader.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

    from convoy.dataloader.loader import Loader
    from convoy.dataloader.options import InputOptions
    from convoy.dataloader.sources.source import Source

# Flags and keys of a run's config.yaml that have another name in InputOptions, or form half of one
# of its fields.
_RENAMED = {"augmenter_name": "augmenter", "autoaugmentation_name": "policy"}
_RENAMED |= {"randaugment_space": "space"}

# Training's defaults where InputOptions has different ones.
_DEFAULTS = {"augmenter_name": "autoaugment", "exif_orientation": "apply"}

_PAIRS = {"crop_area": ("crop_area_min", "crop_area_max")}
_PAIRS |= {"crop_ratio": ("crop_ratio_min", "crop_ratio_max")}


@dataclass
class Example:
    """One tile: the training image, the whole original, and what was done to it."""

    image: Image
    original: Image
    lines: list[str]


def training_examples(
    data_dir: str,
    dataset: str,
    settings: dict[str, Any],
    count: int,
    epoch: int,
    tell: Callable[[Source], None] | None = None,
) -> tuple[list[Example], InputOptions]:
    """Returns the first training images of an epoch, and the settings of the input.

    Args:
        data_dir: the data.
        dataset: as training's `--dataset`.
        settings: the flags that are set, under their training names; may include flags outside the
            input.
        count: number of images.
        epoch: whose order and augmentation to use.
        tell: see `dataloader.sources.find.find_source`.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from convoy.dataloader.loader import Loader
    from convoy.dataloader.options import InputOptions
    from convoy.dataloader.sources.find import find_source
    from convoy.dataloader.sources.held_out import division

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


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """Converts training's settings to fields of InputOptions; drops settings outside the input."""
    from convoy.dataloader.options import InputOptions

    known = {field.name: field.default for field in fields(InputOptions)}
    found = {_RENAMED.get(name, name): value for name, value in given.items()}
    for name, halves in _PAIRS.items():
        defaults = cast("tuple[float, float]", known[name])
        found[name] = tuple(
            given.get(half, default) for half, default in zip(halves, defaults, strict=True)
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
    """Returns the original, and lines that say what changed it; checks them against the pixels."""
    import tensorflow as tf

    from convoy.dataloader.augment.augmenter import apply_choice
    from convoy.dataloader.augment.policies import IDENTITY, OPS
    from convoy.dataloader.images import crops
    from convoy.dataloader.images.decoders import decode_image

    options, source = loader.options, loader.source
    label = 0 if source.labels is None else int(source.labels[index])
    encoded, _ = source.parse(source.read(np.array([index]))[0], label)
    original = decode_image(encoded, options.turn).numpy()
    uniforms = tf.random.stateless_uniform([crops.UNIFORMS], seeds[0], alg="philox")
    area, ratio = options.crop_area, options.crop_ratio
    window = crops.crop_window(tf.constant(original.shape[:2]), uniforms, area, ratio).numpy()
    share = window[2] * window[3] / (original.shape[0] * original.shape[1])
    flipped = options.hflip > 0 and float(uniforms[-1]) < options.hflip
    lines = [f"crop {100 * share:.0f} %" + (", flipped" if flipped else "")]
    augment = loader.augmenter
    image = crops.random_crop_decode(
        encoded,
        seeds[0],
        options.image_size,
        area=area,
        ratio=ratio,
        interpolation=options.interpolation,
        hflip=options.hflip,
        turn=options.turn,
    )
    if augment is not None and augment.recipe.draws:
        choice = augment.choose(tf.constant(seeds[1]))
        image = apply_choice(image, choice)
        for op, argument in zip(choice.ops.numpy(), choice.arguments.numpy(), strict=True):
            if OPS[op] != IDENTITY:
                lines.append(OPS[op] + (f" {argument:.3g}" if argument else ""))
    if loader.mixes:
        return original, lines  # the label shows the mixing; the pixels are a mix of two images
    if not (image.numpy() == pixels).all():
        if not options.random_erasing:
            raise RuntimeError(
                f"{source.describe(index)}: the operations named ({', '.join(lines)}) do not give "
                "the image that the loader gave. This is a mistake in Convoy: please report it."
            )
        lines.append("Erase")
    return original, lines
