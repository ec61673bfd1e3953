"""Images on their way into a record: as they are where TensorFlow reads them, else recoded."""

from __future__ import annotations

import io
from dataclasses import dataclass

from convoy.dataloader.by_pillow import BadImage, check_pixels, opened, to_rgb, unread
from convoy.dataloader.kinds import HEAD_BYTES, kind_of

_KEPT = {"JPEG": "jpeg", "PNG": "png", "GIF": "gif", "BMP": "bmp"}
DEFAULT_QUALITY = 95
__all__ = ["BadImage", "Recoding", "recode"]


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

    Each image is decoded, so that none is packed that cannot be; bytes that need no change are then
    passed on as they were. Pixels are those that training reads (`by_pillow.to_rgb`); transparency,
    colour profiles and EXIF are dropped, and EXIF's orientation is not applied, as training does
    not apply it either.

    Raises:
        BadImage: it cannot be read, or it has too many pixels even at the scale needed.
    """
    from PIL import Image

    if reason := unread(data):
        raise BadImage(reason)
    bound, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # ours comes after the scaling
    try:
        return _recode(data, how)
    finally:
        Image.MAX_IMAGE_PIXELS = bound


def _recode(data: bytes, how: Recoding) -> tuple[bytes, str]:
    from PIL import Image

    kind, short = kind_of(data[:HEAD_BYTES]), how.resize_short
    with opened(data) as image:
        width, height = image.size
        shrink = short is not None and min(width, height) > short
        plain = kind in _KEPT and not (kind == "BMP" and image.mode in ("P", "1"))
        if shrink:
            target = [max(1, round(side * short / min(width, height))) for side in (width, height)]
            # A JPEG is decoded at half, a quarter or an eighth of its size where that is enough;
            # twice the target is kept for the filter.
            image.draft(None, [2 * side for side in target])
        check_pixels(*image.size)
        if plain and not shrink and how.quality is None:
            image.load()
            return data, _KEPT[kind]
        image = to_rgb(image)
        if shrink:
            image = image.resize(target, Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=how.quality or DEFAULT_QUALITY)
        return stream.getvalue(), "jpeg"
