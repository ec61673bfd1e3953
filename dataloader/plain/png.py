"""Decodes PNGs with Pillow; accepts the files that libpng, and so TensorFlow, accepts.

Pillow would also read chunks that do not matter here, and refuse a PNG for damage in them.
"""

from __future__ import annotations

import zlib

import numpy as np

from convoy.dataloader.images.by_pillow import BadImage, check_pixels, opened, to_rgb
from convoy.utils.text import printable

_SIGNATURE = 8
_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_LONGEST_SIDE = 1_000_000  # libpng's own limit
_ENDS_EARLY = "damaged (it ends before its end marker)"


def decode(encoded: bytes) -> np.ndarray:
    """Returns uint8 `(H, W, 3)`.

    Raises:
        BadImage: it is damaged, or has too many pixels.
    """
    encoded = pixels_alone(encoded)
    with opened(encoded) as image:
        check_pixels(*image.size)
        if max(image.size) > _LONGEST_SIDE:
            raise BadImage(f"a side is longer than {_LONGEST_SIDE} pixels")
        return np.asarray(to_rgb(image))


def pixels_alone(encoded: bytes) -> bytes:
    """Returns a PNG without the chunks that pixels do not need.

    Raises:
        BadImage: it ends early, or one of the others is damaged or unknown.
    """
    kept, place, name = [encoded[:_SIGNATURE]], _SIGNATURE, b""
    while name != b"IEND":
        content = place + 8 + int.from_bytes(encoded[place : place + 4], "big")
        name, end = encoded[place + 4 : place + 8], content + 4
        if end > len(encoded):
            raise BadImage(_ENDS_EARLY)
        if name[:1].isupper():
            check_chunk(encoded, place, content)
            if name not in _PIXELS:
                raise BadImage("damaged (it has a chunk of an unknown kind)")
            kept.append(encoded[place:end])
        place = end
    return b"".join(kept)


def check_chunk(encoded: bytes, place: int, content: int) -> None:
    """Raises BadImage if a chunk's checksum is wrong.

    Args:
        encoded: the PNG.
        place: where the chunk begins.
        content: where its content ends and its checksum begins.
    """
    said = int.from_bytes(encoded[content : content + 4], "big")
    if zlib.crc32(memoryview(encoded)[place + 4 : content]) != said:
        name = printable(encoded[place + 4 : place + 8].decode("latin-1"))
        raise BadImage(f"damaged (the checksum of its {name} is wrong)")
