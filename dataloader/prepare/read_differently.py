"""Says of a picture why programs read other pixels from it than Convoy does.

docs/agreement.md shows what each program makes of such files.
"""

from __future__ import annotations

from convoy.dataloader.images import exif
from convoy.dataloader.images.by_pillow import opened
from convoy.dataloader.images.file_kinds import HEAD_BYTES, kind_of

_BIT_DEPTH = 24  # place of this number in a PNG
_HEADER, _PIXEL_BITS = 14, 28  # places of the header's size and of the bits of a pixel in a BMP
_OS2 = 12  # size of the header of OS/2


def read_differently(encoded: bytes) -> str | None:
    """Returns why programs read an image differently; None if the usual ones agree.

    The usual ones are TensorFlow, Pillow, torchvision, OpenCV and DALI with their defaults; "agree"
    allows for the rounding of a JPEG.

    Args:
        encoded: a picture that Convoy can read.

    Raises:
        BadImage: it cannot be read.
    """
    kind = kind_of(encoded[:HEAD_BYTES])
    with opened(encoded) as image:
        turn = exif.orientation(image)
        if turn != 1:
            return (
                f"EXIF orientation {turn}: OpenCV and DALI turn the picture, TensorFlow, Pillow and"
                " torchvision do not; here --exif_orientation decides"
            )
        if kind == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info:
            return (
                "CMYK without Adobe's marker: TensorFlow and DALI read a negative of what Pillow,"
                " OpenCV and Convoy read"
            )
        if kind == "PNG" and encoded[_BIT_DEPTH] > 8:
            return (
                "16 bits: TensorFlow, OpenCV and Convoy take the upper 8, DALI rounds, and Pillow"
                " clips grey ones at 255"
            )
        if kind == "GIF" and "transparency" in image.info:
            return "a transparent GIF: TensorFlow reads black, Pillow and Convoy what is underneath"
        tiles = getattr(image, "tile", [])  # of Pillow's images from files
        if kind == "GIF" and tiles and tiles[0][1] != (0, 0, *image.size):
            return (
                "a GIF whose first frame is smaller than its canvas: TensorFlow reads the frame"
                " alone, Pillow and Convoy the canvas"
            )
        if kind == "BMP" and (encoded[_HEADER] == _OS2 or encoded[_PIXEL_BITS] == 16):
            return "a BMP of OS/2 or of 16 bits: TensorFlow does not read it"
        if kind == "BMP" and image.mode in ("1", "P"):
            return (
                "a BMP with a palette: TensorFlow reads the palette's numbers as grey levels,"
                " Pillow and Convoy the colours"
            )
    if kind in ("WebP", "TIFF", "AVIF"):
        return f"{kind}: not every version of TensorFlow, DALI and OpenCV reads it"
    return None
