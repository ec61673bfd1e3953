"""Makes unusual images, and small files whose header claims a huge image."""

import struct
import zlib

import numpy as np

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


def without_marker(data):
    data = bytearray(data)
    start = data.index(b"\xff\xee")
    del data[start : start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")]
    return bytes(data)


def ycck(photo):
    """Returns YCCK: CMYK transformed like YCbCr, which the marker says. Photoshop writes it too."""
    data = bytearray(adobe_cmyk(photo))
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


def gif_on_canvas(photo, width, height):
    """Returns a GIF whose only frame covers a part of its canvas."""
    data = bytearray(encoded(photo, "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def bmp_of_16_bits(photo):
    """Returns a BMP with five bits per channel, as old programs write it."""
    pixels = np.asarray(photo).astype(np.uint16) >> 3
    rows = (pixels[::-1, :, 0] << 10 | pixels[::-1, :, 1] << 5 | pixels[::-1, :, 2]).astype("<u2")
    return bmp(
        struct.pack("<IiiHHIIiiII", 40, *photo.size, 1, 16, 0, 0, 0, 0, 0, 0), rows.tobytes()
    )


def bmp_of_os2(photo):
    """Returns a BMP with a header of 12 bytes and 16-bit sizes."""
    rows = np.asarray(photo)[::-1, :, ::-1].tobytes()
    return bmp(struct.pack("<IHHHH", 12, *photo.size, 1, 24), rows)


def bmp(header, rows):
    start = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + rows


GOOD = {
    "grey": lambda photo: encoded(photo.convert("L")),
    "CMYK": adobe_cmyk,
    "CMYK without a marker": lambda photo: without_marker(adobe_cmyk(photo)),
    "progressive CMYK": lambda photo: encoded(photo.convert("CMYK"), progressive=True),
    "YCCK": ycck,
    "progressive": lambda photo: encoded(photo, progressive=True),
    "RGB inside a JPEG": lambda photo: encoded(photo, keep_rgb=True),
    "unsampled": lambda photo: encoded(photo, subsampling=0),
    "PNG": lambda photo: encoded(photo, "PNG"),
    "PNG with a palette": lambda photo: encoded(photo.convert("P"), "PNG"),
    "1-bit PNG": lambda photo: encoded(photo.convert("1"), "PNG"),
    "GIF": lambda photo: encoded(photo, "GIF"),
    "transparent GIF": lambda photo: encoded(photo.convert("P"), "GIF", transparency=3),
    "GIF on a larger canvas": lambda photo: gif_on_canvas(photo, 100, 80),
    "BMP": lambda photo: encoded(photo, "BMP"),
    "grey BMP": lambda photo: encoded(photo.convert("L"), "BMP"),
    "BMP with a palette": lambda photo: encoded(photo.convert("P"), "BMP"),
    "1-bit BMP": lambda photo: encoded(photo.convert("1"), "BMP"),
    "BMP with alpha": lambda photo: encoded(photo.convert("RGBA"), "BMP"),
    "16-bit BMP": lambda photo: bmp_of_16_bits(photo),
    "OS/2 BMP": lambda photo: bmp_of_os2(photo),
    "WebP": lambda photo: encoded(photo, "WEBP"),
    "WebP with alpha": lambda photo: encoded(photo.convert("RGBA"), "WEBP", lossless=True),
    "TIFF": lambda photo: encoded(photo, "TIFF"),
    "compressed TIFF": lambda photo: encoded(photo, "TIFF", compression="tiff_lzw"),
    "CMYK TIFF": lambda photo: encoded(photo.convert("CMYK"), "TIFF"),
    "AVIF": lambda photo: encoded(photo, "AVIF"),
}
