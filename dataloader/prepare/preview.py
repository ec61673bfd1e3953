"""`prepare preview`: draws training images as the network sees them, and their operations.

The images come out of the real `Loader`. The augmentation of each is drawn again from its seed, and
is named only if applying it gives the same pixels.
"""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convoy.dataloader.errors import DataError
from convoy.dataloader.prepare.pack import print_found
from convoy.dataloader.training_examples import _DEFAULTS, Example, training_examples
from convoy.utils.pages.page import write_page
from convoy.utils.text import read_text

if TYPE_CHECKING:
    from PIL.Image import Image


_CAPTION_LINES = 5
_LINE = 12  # pixels


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
    """Writes `<out>.png` and a self-contained `<out>.html`.

    Args:
        data_dir: the data.
        out: path of the two files, without their endings.
        dataset: as training's `--dataset`.
        count: number of images to show: the first ones of the epoch's order.
        epoch: whose order and augmentation to show.
        config: a run's config.yaml, for its input settings; for progressive training, those of the
            last stage.
        **settings: flags under training's names; None if unset. They override `config`.

    Returns:
        0.

    Raises:
        DataError: there is no data, the settings are invalid, or an image cannot be read.
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


def _read_config(path: str) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(read_text(path, f"--config {path}"))
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"--config {path}: cannot be read ({error}).") from error
    if not isinstance(content, dict):
        raise DataError(f"--config {path}: expected settings, one per line.")
    if "base" in content:
        raise DataError(
            f"--config {path} is a recipe built on another: give the config.yaml that a run leaves "
            "in its model_dir, where all settings are."
        )
    given = {name: value for name, value in content.items() if value is not None}
    given.setdefault("exif_orientation", "ignore")  # for a run made before the flag existed
    if "train_image_size" in given:
        given["image_size"] = given["train_image_size"]
    return given


def _sheet(examples: list[Example]) -> Image:
    """Draws all tiles with their captions as one picture, about as wide as high."""
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
            # characters that every font has
            plain = line.encode("latin-1", "replace").decode("latin-1")
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

    shown = (
        *("image_size", "augmenter", "policy", "num_layers", "magnitude", "hflip", "crop_area"),
        *("crop_ratio", "random_erasing", "mixup_alpha", "cutmix_alpha", "seed"),
    )
    write_page(
        Path(path),
        "preview.html.j2",
        size=options.image_size,
        settings=[(name, getattr(options, name)) for name in shown],
        tiles=[tile(example) for example in examples],
    )
