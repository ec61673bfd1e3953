"""Images on their way into a record: as they are where TensorFlow reads them, else recoded."""

from __future__ import annotations

import io
import re
import zlib
from dataclasses import dataclass

from convoy.dataloader.images import exif
from convoy.dataloader.images.by_pillow import BadImage, check_pixels, opened, to_rgb, unread
from convoy.dataloader.images.file_kinds import HEAD_BYTES, kind_of

# Of a JPEG, but for those that only stuff its data.
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_KEPT = {"JPEG": "jpeg", "PNG": "png", "GIF": "gif", "BMP": "bmp"}
_LONGEST_JPEG = 65_500  # pixels, of libjpeg
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
    colour profiles and EXIF are dropped, but for its orientation, so that whoever reads the images
    may apply it or not.

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
        plain = kind in _KEPT and (kind != "BMP" or _is_plain_bmp(data, image.mode))
        if shrink:
            target = [max(1, round(side * short / min(width, height))) for side in (width, height)]
            # A JPEG is decoded at half, a quarter or an eighth of its size where that is enough;
            # twice the target is kept for the filter.
            image.draft(None, [2 * side for side in target])
        check_pixels(*image.size)
        if plain and not shrink and how.quality is None:
            image.load()
            _check_whole(data, kind)
            return data, _KEPT[kind]
        few = image.mode in ("1", "P") and not shrink and how.quality is None  # edges without noise
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
    """Whether it is of grey levels or 24 bits, not compressed, and with a header of Windows'."""
    header, bits, compression = (
        int.from_bytes(data[start:end], "little") for start, end in ((14, 18), (28, 30), (30, 34))
    )
    return header >= 40 and compression == 0 and (bits == 24 or (mode == "L" and bits == 8))


def _check_whole(data: bytes, kind: str) -> None:
    """Raises BadImage for damage that Pillow passes over where TensorFlow, which trains, stops."""
    ends = {"JPEG": _end_of_jpeg, "PNG": _end_of_png}
    if kind in ends and not ends[kind](data):
        raise BadImage("damaged (it ends before its end marker)")


def _end_of_jpeg(data: bytes) -> int:
    """Where the marker of its end stands, going from segment to segment; 0 if there is none."""
    place = 2
    while match := _MARKER.search(data, place):
        place = match.end()
        if match[1] == b"\xd9":
            return place
        if not b"\xd0" <= match[1] <= b"\xd7":  # restarts stand within a scan, without a length
            place += int.from_bytes(data[place : place + 2], "big")
    return 0


def _end_of_png(data: bytes) -> int:
    """Where its last chunk ends; 0 if there is none.

    Raises:
        BadImage: a checksum is wrong, of a chunk that may not be passed over.
    """
    place, name = 8, b""
    while name != b"IEND":
        content = place + 8 + int.from_bytes(data[place : place + 4], "big")
        name, checksum = data[place + 4 : place + 8], data[content : content + 4]
        if len(checksum) < 4:
            return 0
        whole = zlib.crc32(memoryview(data)[place + 4 : content]) == int.from_bytes(checksum, "big")
        if name[:1].isupper() and not whole:
            raise BadImage(f"damaged (the checksum of its {name.decode('latin-1')} is wrong)")
        place = content + 4
    return place
