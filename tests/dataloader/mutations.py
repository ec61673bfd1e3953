"""Small images of many formats, and random damage to bytes, for the fuzzers."""

import io

import numpy as np
from PIL import Image


def images(rng):
    """Returns small encoded images of every format that is read."""
    small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
    photo = small.resize((28, 20), Image.Resampling.BICUBIC)
    kinds = [("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"subsampling": 0})]
    kinds += [("PNG", {}), ("BMP", {}), ("GIF", {}), ("WEBP", {}), ("AVIF", {})]
    kinds += [("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})]
    modes = [photo, photo.convert("L"), photo.convert("CMYK"), photo.convert("P")]
    found = []
    for image in modes:
        for kind, options in kinds:
            if (kind == "JPEG" and image.mode == "P") or (
                kind not in ("JPEG", "TIFF") and image.mode == "CMYK"
            ):
                continue
            buffer = io.BytesIO()
            image.save(buffer, kind, **options)
            found.append(buffer.getvalue())
    return found


def mutate(data, rng):
    """Makes a few random changes: bits, bytes, extreme numbers, cuts, repeats and insertions."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        if not data:
            return bytes(data)
        place = int(rng.integers(len(data)))
        if rng.random() < 0.5:
            place = min(place, int(rng.integers(1, 64)), len(data) - 1)  # headers come first
        some = int(rng.integers(1, 17))
        match int(rng.integers(7)):
            case 0:
                data[place] ^= 1 << int(rng.integers(8))
            case 1:
                data[place] = int(rng.choice([0, 1, 127, 128, 254, 255]))
            case 2:
                data[place : place + some] = rng.bytes(some)
            case 3:
                data[place : place + some] = bytes([int(rng.choice([0, 255]))]) * some
            case 4:
                del data[place:]
            case 5:
                del data[place : place + some]
            case 6:
                data[place:place] = data[place : place + some]
    return bytes(data)
