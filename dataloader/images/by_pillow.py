"""Decodes with Pillow the pictures that TensorFlow cannot decode, or decodes differently.

Training, evaluation, predict and `prepare` all read them here, so that they see the same pixels.
This module needs no TensorFlow, and imports Pillow for the first such picture.
"""

from __future__ import annotations

import ctypes
import functools
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convoy.dataloader.images import exif
from convoy.dataloader.images.file_kinds import HEAD_BYTES, READ, kind_of

if TYPE_CHECKING:
    from PIL.Image import Image

# Larger images are rejected before they take memory: decoded, this many pixels are 268 MB per
# thread. The bound is Pillow's `Image.MAX_IMAGE_PIXELS`.
MAX_PIXELS = 89_478_485
# Pillow's names of the formats to decode. Its other readers never see unknown bytes.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF")
_READ = "JPEG, PNG, BMP, GIF, WebP, TIFF and AVIF"


# PIL.Image.Transpose for each EXIF orientation.
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}


class BadImage(ValueError):
    """An image cannot be read or packed; the text says why."""


def decode(encoded: bytes, upright: bool = False) -> np.ndarray:
    """Decodes a GIF (its first frame), BMP, WebP, TIFF (its first page), AVIF, JPEG or PNG.

    Args:
        encoded: the file's bytes.
        upright: apply EXIF's orientation; for TIFFs it is always applied.

    Returns:
        uint8 `(H, W, 3)`.

    Raises:
        BadImage: it is none of these, damaged, or has too many pixels.
    """
    from PIL.Image import Transpose

    if reason := unread(encoded):
        raise BadImage(reason)
    with opened(encoded) as image:
        check_pixels(*image.size)
        turn = _TURNS.get(exif.orientation(image)) if upright else None
        pixels = to_rgb(image)
        return np.asarray(pixels if turn is None else pixels.transpose(Transpose(turn)))


def unread(encoded: bytes) -> str | None:
    """Returns why bytes cannot be read if their kind is the reason, otherwise None."""
    if not encoded:
        return "the image has no bytes"
    kind = kind_of(encoded[:HEAD_BYTES])
    if kind is None:
        return f"not a picture of a kind that is read ({_READ})"
    return None if kind in READ else f"the image is {kind}, which is not read: convert it to JPEG"


@functools.cache
def _formats() -> tuple[str, ...]:
    """Returns the `_FORMATS` that this Pillow supports, and silences Pillow.

    What Pillow and its libtiff print about broken pictures names no file, and the error that
    follows says the same.
    """
    import PIL
    from PIL import Image

    Image.init()
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    # we check our own bound
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    libraries = Path(PIL.__file__).parent.with_name("pillow.libs")
    for path in libraries.glob("libtiff*.so*"):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(str(path)).TIFFSetErrorHandler(None)
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def kinds_here() -> list[str]:
    """Returns the kinds of `file_kinds.READ` that the installed Pillow can read."""
    return sorted(kind for kind in READ if kind.upper() in _formats())


@contextmanager
def opened(encoded: bytes) -> Iterator[Image]:
    """Opens a picture with Pillow; any error of Pillow in the block becomes BadImage."""
    try:
        from PIL import Image
    except ImportError as error:
        raise BadImage("this kind of picture needs Pillow: pip install pillow") from error
    kind = kind_of(encoded[:HEAD_BYTES])
    if kind in READ and kind.upper() not in _formats():
        raise BadImage(
            f"the image is {kind}, and the Pillow here was built without that: pip install -U "
            "pillow, or convert it to JPEG"
        )
    try:
        with Image.open(io.BytesIO(encoded), formats=_formats()) as image:
            yield image
    except BadImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(f"more than {MAX_PIXELS} pixels") from error
    except Image.UnidentifiedImageError as error:
        raise BadImage("damaged, or not a picture") from error
    except MemoryError as error:
        raise BadImage("there is not enough memory to decode it") from error
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise BadImage(f"damaged ({text})") from error


def check_pixels(width: int, height: int) -> None:
    """Raises BadImage if an image has too many pixels to decode."""
    if width * height > MAX_PIXELS:
        raise BadImage(
            f"{width} x {height} is more than {MAX_PIXELS} pixels: shrink it (prepare folder "
            "--resize_short does so with JPEGs)"
        )


def to_rgb(image: Image) -> Image:
    """Converts to RGB as training reads it.

    Of 16 bits it keeps the upper 8, and it keeps the colours under transparent areas.

    Raises:
        BadImage: the picture has 32 bits per channel, so its black and white levels are unknown.
    """
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        # Pillow's own conversion would clip instead of scaling.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise BadImage("a picture of 32 bits a channel: convert it to 8 bits")
    image.info.pop("transparency", None)
    return image.convert("RGB")
