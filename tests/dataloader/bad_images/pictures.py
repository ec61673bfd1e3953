"""Makes unusual images, and small files whose header claims a huge image."""

import struct
import zlib

from tests.dataloader.packing import encoded


def adobe_cmyk(photo):
    """Returns inverted CMYK with an APP14 marker, as Photoshop writes it and ImageNet has it."""
    data = encoded(photo.convert("CMYK"), quality=95)
    assert b"Adobe" in data[:200]
    return data


def png_claiming(width, height):
    """Returns a PNG of few bytes whose header claims a huge image."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rows = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg_claiming(photo, width, height):
    data = bytearray(encoded(photo))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)
