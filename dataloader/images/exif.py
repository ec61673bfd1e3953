"""Reads a picture's EXIF orientation in Python.

Pillow's decoder and packing need it, and training if no native operations are built.

`turning.py` explains the numbers. This module needs no TensorFlow.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

SETTINGS = ("apply", "ignore")
_TAG, _TYPES = 0x0112, {3: "H", 4: "I"}
_MARK = b"Exif\0\0"


def check_orientation(setting: str) -> str:
    """Returns the setting; raises ValueError if it is not one of `SETTINGS`."""
    if setting not in SETTINGS:
        raise ValueError(f"exif_orientation is {' or '.join(SETTINGS)}, not {setting!r}.")
    return setting


def orientation(image: Image) -> int:
    """Returns the orientation of a picture opened with Pillow, 1 to 8; 1 if none or broken.

    Pillow turns TIFFs itself; for AVIF it reports the container's own rotation in the same way. An
    orientation in XMP does not count; browsers ignore it too.
    """
    if image.format == "TIFF":
        return 1
    if image.format == "PNG" and "exif" not in image.info:
        image.load()  # EXIF may come after the pixels
    return of_exif(image.info.get("exif") or b"")


def of_encoded(data: bytes) -> int:
    """Returns the orientation of an encoded JPEG or PNG, 1 to 8; 1 for others or if unset."""
    if data[:2] == b"\xff\xd8":
        return of_exif(_in_jpeg(data))
    return of_exif(_in_png(data)) if data[:4] == b"\x89PNG" else 1


def _in_jpeg(data: bytes) -> bytes:
    """Returns the EXIF data; goes from segment to segment up to the first with pixels."""
    place = 2
    while place + 10 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == 0xFF:  # padding
            place += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:  # has no length field
            place += 2
        elif marker in (0xDA, 0xD9) or length < 2:
            break
        elif marker == 0xE1 and data[place + 4 : place + 10] == _MARK:
            return data[place + 10 : place + 2 + length] if place + 2 + length <= len(data) else b""
        else:
            place += 2 + length
    return b""


def _in_png(data: bytes) -> bytes:
    """Returns the EXIF data, which may come after the pixels."""
    place = 8
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] == b"eXIf":
            return data[place + 8 : end - 4] if end <= len(data) else b""
        place = end
    return b""


def of_exif(data: bytes) -> int:
    """Returns the orientation in EXIF data, which are a TIFF without pixels."""
    while data.startswith(_MARK):
        data = data[len(_MARK) :]
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8 or struct.unpack_from(f"{order}H", data, 2) != (42,):
        return 1
    (place,) = struct.unpack_from(f"{order}I", data, 4)
    if place + 2 > len(data):
        return 1
    (count,) = struct.unpack_from(f"{order}H", data, place)
    found = 1
    for start in range(place + 2, min(place + 2 + 12 * count, len(data) - 11), 12):
        tag, kind, number = struct.unpack_from(f"{order}HHI", data, start)
        if tag == _TAG:
            found = 1
            if kind in _TYPES and number == 1:
                (value,) = struct.unpack_from(order + _TYPES[kind], data, start + 8)
                found = value if 1 <= value <= 8 else 1
    return found


def exif_with(orientation: int) -> bytes:
    """Returns EXIF data with only an orientation, as Pillow's writers accept them."""
    entry = struct.pack("<HHIHH", _TAG, 3, 1, orientation, 0)
    return _MARK + b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
