"""Decodes JPEGs with Pillow's libjpeg-turbo; accepts the files that TensorFlow's accepts.

Pillow's `Image.open` reads headers itself, is strict about data that evaluation does not need, and
lenient about the rest. Here libjpeg reads the whole file, as in TensorFlow.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from convoy.dataloader.images.by_pillow import BadImage

if TYPE_CHECKING:
    from PIL import Image

_SOF = frozenset((0xC0, 0xC1, 0xC2, 0xC9, 0xCA))
_ALONE = frozenset((0x01, *range(0xD0, 0xD8)))
_EOI, _SOS = 0xD9, 0xDA
# A marker with a segment behind the header: not a byte of the pixels, a restart, padding or TEM.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_ENDS_EARLY = "damaged (it ends too early)"


class Header(NamedTuple):
    """What a JPEG's header says.

    Attributes:
        height, width: of the stored picture, in pixels.
        channels: number of colours: 1, 3 or 4.
        scan: the place of the first byte behind the header.
    """

    height: int
    width: int
    channels: int
    scan: int


def read_header(encoded: bytes) -> Header:
    """Goes from segment to segment, as libjpeg does, up to the first scan.

    Raises:
        BadImage: there is no scan, or no size before it.
    """
    place, size = 2, None
    while (place := encoded.find(b"\xff", place)) >= 0:
        while encoded[place : place + 1] == b"\xff":
            place += 1
        marker = encoded[place] if place < len(encoded) else _EOI
        place += 1
        if marker == 0 or marker in _ALONE:
            continue
        if marker in (_EOI, _SOS):
            break
        if marker in _SOF:
            if size is not None:
                raise BadImage("damaged (it has two sizes)")
            size = _size(encoded[place : place + 8])
        place += max(int.from_bytes(encoded[place : place + 2], "big"), 2)
    else:
        raise BadImage(_ENDS_EARLY)
    if marker == _EOI or size is None:
        raise BadImage("damaged (there is no picture in it)")
    return Header(*size, place)


def _size(segment: bytes) -> tuple[int, int, int]:
    if len(segment) < 8:
        raise BadImage(_ENDS_EARLY)
    height, width = int.from_bytes(segment[3:5], "big"), int.from_bytes(segment[5:7], "big")
    if not height or not width:
        raise BadImage("damaged (it has no pixels)")
    return height, width, segment[7]


def decode(encoded: bytes, header: Header, bottom: int) -> np.ndarray:
    """Returns uint8 `(height, width, 3)`, of which the first `bottom` rows are right.

    As in TensorFlow, a file that is damaged below these rows counts as whole; if they are all of
    its rows, it needs its end marker too.

    Raises:
        BadImage: the file is damaged above.
    """
    from PIL import Image

    mode = "CMYK" if header.channels == 4 else "RGB"
    size = header.width, header.height
    image = Image.new(mode, size)
    try:
        image.frombytes(encoded, "jpeg", (mode, ""))
    except (ValueError, OSError) as error:
        rows = _rows(image, encoded, mode) if bottom < header.height else 0
        if rows < bottom:
            early = "not enough" in str(error)
            raise BadImage(_ENDS_EARLY if early else "damaged") from error
    else:
        if bottom == header.height and not _has_end(encoded, header.scan):
            raise BadImage(_ENDS_EARLY)
    pixels = np.asarray(image)
    return _of_cmyk(pixels) if mode == "CMYK" else pixels


def _has_end(encoded: bytes, scan: int) -> bool:
    """Returns whether an end marker follows, going from segment to segment."""
    place = scan
    while match := _MARKER.search(encoded, place):
        place = match.end()
        if match[0][1] == _EOI:
            return True
        place += max(int.from_bytes(encoded[place : place + 2], "big"), 2)
    return False


def _rows(image: Image.Image, encoded: bytes, mode: str) -> int:
    """Returns how many rows were decoded before an error: those that another background leaves."""
    from PIL import Image

    other = Image.new(mode, image.size, (255,) * len(mode))
    with suppress(ValueError, OSError):
        other.frombytes(encoded, "jpeg", (mode, ""))
    same = (np.asarray(image) == np.asarray(other)).all((1, 2))
    return len(same) if same.all() else int(same.argmin())


def _of_cmyk(pixels: np.ndarray) -> np.ndarray:
    """Converts inverted CMYK, which all JPEGs of four colours hold, to RGB as TensorFlow does."""
    wide = pixels.astype(np.uint16)
    return (wide[..., :3] * wide[..., 3:] // 255).astype(np.uint8)
