"""Prepares images for a record: unchanged if TensorFlow reads them, otherwise recoded."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

from convoy.dataloader.images import exif
from convoy.dataloader.images.by_pillow import BadImage, check_pixels, opened, to_rgb, unread
from convoy.dataloader.images.file_kinds import HEAD_BYTES, kind_of
from convoy.dataloader.plain.png import check_chunk
from convoy.utils.optional import known

# Markers of a JPEG, without the padding bytes.
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_KEPT = {"JPEG": "jpeg", "PNG": "png", "GIF": "gif", "BMP": "bmp"}
_LONGEST_JPEG = 65_500  # pixels, limit of libjpeg
DEFAULT_QUALITY = 95
__all__ = ["BadImage", "Recoding", "recode"]


@dataclass(frozen=True)
class Recoding:
    """Changes to make.

    Attributes:
        resize_short: pixels; images with a longer short side are shrunk to it; none is enlarged.
        quality: JPEG quality for every image; None re-encodes only where necessary (quality 95).
    """

    resize_short: int | None = None
    quality: int | None = None


def recode(data: bytes, how: Recoding) -> tuple[bytes, str]:
    """Returns the bytes to store and their format, "jpeg", "png", "gif" or "bmp".

    It decodes each image, so that no undecodable image is packed; bytes that need no change are
    returned unchanged. Pixels are those that training reads (`by_pillow.to_rgb`). Transparency,
    colour profiles and EXIF are dropped, except EXIF's orientation, so that readers of the images
    may apply it or not.

    Raises:
        BadImage: the image cannot be read, or it has too many pixels even at the needed scale.
    """
    from PIL import Image

    if reason := unread(data):
        raise BadImage(reason)
    # our own check comes after the scaling
    bound, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        return _recode(data, how)
    finally:
        Image.MAX_IMAGE_PIXELS = bound


def _recode(data: bytes, how: Recoding) -> tuple[bytes, str]:
    from PIL import Image

    kind, short = kind_of(data[:HEAD_BYTES]), how.resize_short
    with opened(data) as image:
        width, height = image.size
        least = min(width, height)
        shrink = short is not None and least > short
        plain = kind in _KEPT and (kind != "BMP" or _is_plain_bmp(data, image.mode))
        if shrink:
            wanted = known(short)
            target = max(1, round(width * wanted / least)), max(1, round(height * wanted / least))
            # libjpeg can decode at a half, a quarter or an eighth of the size. Use this, but keep
            # twice the target size for the filter.
            image.draft(None, (2 * target[0], 2 * target[1]))
        check_pixels(*image.size)
        if kind is not None and plain and not shrink and how.quality is None:
            image.load()
            _check_whole(data, kind)
            return data, _KEPT[kind]
        # sharp edges without noise
        few = image.mode in ("1", "P") and not shrink and how.quality is None
        turn = exif.orientation(image)
        image = to_rgb(image)
        if shrink:
            image = image.resize(target, Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        kind = "PNG" if few or max(image.size) > _LONGEST_JPEG else "JPEG"
        kept = {"exif": exif.exif_with(turn)} if turn > 1 else {}
        image.save(stream, kind, quality=how.quality or DEFAULT_QUALITY, **kept)
        return stream.getvalue(), _KEPT[kind]


def _is_plain_bmp(data: bytes, mode: str) -> bool:
    """Returns whether it has grey levels or 24 bits, no compression, and a Windows header."""
    header, bits, compression = (
        int.from_bytes(data[start:end], "little") for start, end in ((14, 18), (28, 30), (30, 34))
    )
    return header >= 40 and compression == 0 and (bits == 24 or (mode == "L" and bits == 8))


def _check_whole(data: bytes, kind: str) -> None:
    """Raises BadImage for damage that Pillow ignores but TensorFlow, which trains, does not."""
    ends = {"JPEG": _end_of_jpeg, "PNG": _end_of_png}
    if kind in ends and not ends[kind](data):
        raise BadImage("damaged (it ends before its end marker)")


def _end_of_jpeg(data: bytes) -> int:
    """Returns the position of the end marker, going from segment to segment; 0 if there is none."""
    place = 2
    while match := _MARKER.search(data, place):
        place = match.end()
        if match[1] == b"\xd9":
            return place
        # restart markers occur within a scan and have no length
        if not b"\xd0" <= match[1] <= b"\xd7":
            place += int.from_bytes(data[place : place + 2], "big")
    return 0


def _end_of_png(data: bytes) -> int:
    """Returns where the last chunk ends; 0 if there is none.

    Raises:
        BadImage: a chunk that may not be ignored has a wrong checksum.
    """
    place, name = 8, b""
    while name != b"IEND":
        content = place + 8 + int.from_bytes(data[place : place + 4], "big")
        name, checksum = data[place + 4 : place + 8], data[content : content + 4]
        if len(checksum) < 4:
            return 0
        if name[:1].isupper():
            check_chunk(data, place, content)
        place = content + 4
    return place
