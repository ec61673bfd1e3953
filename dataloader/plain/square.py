"""Cuts evaluation's square out of an encoded image: `crops.eval_decode` without TensorFlow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from convoy.dataloader.images import by_pillow, exif
from convoy.dataloader.images.eval_crop import EvalCrop
from convoy.dataloader.images.turning import stored_window, turned
from convoy.dataloader.plain import jpeg, png
from convoy.dataloader.plain.pillow_resizing import pillow_square
from convoy.dataloader.plain.resizing import resize

Shape = tuple[int, int]
Window = tuple[int, int, int, int]


def eval_square(encoded: bytes, size: int, crop: EvalCrop) -> np.ndarray:
    """Decodes an image and cuts its square as `crop` says.

    Args:
        encoded: a picture of a supported kind.
        size: side of the resulting square in pixels.
        crop: how to cut it. In the program's own arithmetic with one of `resizing.KINDS` and
            without antialias; or in Pillow's; not in TensorFlow's.

    Returns:
        uint8 `(size, size, 3)`, the same as from `crops.eval_decode`.

    Raises:
        BadImage: the bytes cannot be decoded.
    """
    if crop.method != "crop":
        image = _decode(encoded, crop.turn, lambda shape: (0, 0, *shape))
        shape, short = image.shape[:2], size + crop.padding
        height, width = (side * short // min(shape) for side in shape)
        if crop.method == "squash":
            height = width = short
        # round() takes the even of two neighbours, as in torchvision's CenterCrop.
        start = round((height - size) / 2), round((width - size) / 2)
        resized = pillow_square if crop.arithmetic == "pillow" else resize
        return resized(image, (height, width), start, size, crop.interpolation)

    def centre(shape: Shape) -> Window:
        side = max(min(shape) * size // (size + crop.padding), 1)
        return (shape[0] - side + 1) // 2, (shape[1] - side + 1) // 2, side, side

    image = _decode(encoded, crop.turn, centre)
    return resize(image, (size, size), (0, 0), size, crop.interpolation)


def _decode(encoded: bytes, turn: bool, window_of: Callable[[Shape], Window]) -> np.ndarray:
    """Decodes a part of an image, uint8 `(h, w, 3)`.

    Args:
        encoded: the file's bytes.
        turn: apply EXIF's orientation.
        window_of: maps the turned image's height and width to y, x, height and width.
    """
    if encoded.startswith(b"\xff\xd8\xff"):
        return _decode_jpeg(encoded, turn, window_of)
    if encoded.startswith(b"\x89PNG"):
        image = png.decode(encoded)
        image = turned(image, exif.of_encoded(encoded)) if turn else image
    else:
        image = by_pillow.decode(encoded, turn)
    return _part(image, window_of((image.shape[0], image.shape[1])))


def _decode_jpeg(encoded: bytes, turn: bool, window_of: Callable[[Shape], Window]) -> np.ndarray:
    header = jpeg.read_header(encoded)
    by_pillow.check_pixels(header.width, header.height)
    number = exif.of_encoded(encoded) if turn else 1
    shape = header.height, header.width
    window = window_of(shape[::-1] if number >= 5 else shape)
    window = stored_window(window, shape, number)
    image = jpeg.decode(encoded, header, bottom=window[0] + window[2])
    return turned(_part(image, window), number)


def _part(image: np.ndarray, window: Window) -> np.ndarray:
    y, x, height, width = window
    return image[y : y + height, x : x + width]
