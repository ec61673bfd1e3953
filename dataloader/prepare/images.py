"""Images on their way into a record: as they are where TensorFlow reads them, else recoded."""

from __future__ import annotations

import io
from dataclasses import dataclass

MAX_PIXELS = 89_478_485  # what dataloader.decode refuses; here its module would cost TensorFlow
_READ_BY_TENSORFLOW = {"JPEG": "jpeg", "PNG": "png", "GIF": "gif", "BMP": "bmp"}
DEFAULT_QUALITY = 95


class BadImage(ValueError):
    """The image cannot be packed; the text says why."""


@dataclass(frozen=True)
class Recoding:
    """What to change.

    Attributes:
        resize_short: pixels; images whose short side is longer are shrunk to it, none is enlarged.
        quality: JPEG quality of everything; None re-encodes only what has to be (quality 95).
    """

    resize_short: int | None = None
    quality: int | None = None


def recode(data: bytes, how: Recoding) -> tuple[bytes, str]:
    """The bytes to store and their format, "jpeg", "png", "gif" or "bmp".

    Bytes that need no change are passed on without being decoded: `verify` does that. Colours go to
    RGB as Pillow converts them; transparency, colour profiles and EXIF are dropped, and EXIF's
    orientation is not applied, as training does not apply it either.

    Raises:
        BadImage: Pillow cannot read it, or it has too many pixels even at the scale needed.
    """
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise BadImage("the file is empty")
    bound, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # ours comes after the scaling
    try:
        with Image.open(io.BytesIO(data)) as image:
            return _recode(image, data, how)
    except UnidentifiedImageError as error:
        raise BadImage("not an image that Pillow knows") from error
    except (OSError, ValueError, SyntaxError, MemoryError) as error:
        raise BadImage(str(error)) from error
    finally:
        Image.MAX_IMAGE_PIXELS = bound


def _recode(image, data: bytes, how: Recoding) -> tuple[bytes, str]:
    from PIL import Image

    kind, (width, height) = image.format, image.size
    short = how.resize_short
    shrink = short is not None and min(width, height) > short
    palette_bmp = kind == "BMP" and image.mode in ("P", "1")
    if kind == "MPO":  # several JPEGs in one file, of which every decoder reads the first
        kind = "JPEG"
    if kind in _READ_BY_TENSORFLOW and not palette_bmp and not shrink and how.quality is None:
        _check_pixels(width, height)
        return data, _READ_BY_TENSORFLOW[kind]
    if shrink:
        target = [max(1, round(side * short / min(width, height))) for side in (width, height)]
        # A JPEG is decoded at half, a quarter or an eighth of its size where that is enough; twice
        # the target is kept for the filter.
        image.draft(None, [2 * side for side in target])
    _check_pixels(*image.size)
    image = _to_rgb(image)
    if shrink:
        image = image.resize(target, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=how.quality or DEFAULT_QUALITY)
    return stream.getvalue(), "jpeg"


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise BadImage(
            f"{width} x {height} is more than {MAX_PIXELS} pixels: shrink it, with --resize_short "
            "if it is a JPEG"
        )


def _to_rgb(image):
    if image.mode.startswith("I;16"):  # Pillow's own conversion would clip instead of scaling
        import numpy as np
        from PIL import Image

        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")
