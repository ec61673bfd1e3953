"""Decoders × kinds of pictures."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.agreement.case import Case, Program, ask

Decoder = Callable[[bytes], np.ndarray]


def photograph() -> np.ndarray:
    """Returns a photograph, uint8 `(427, 640, 3)`."""
    from sklearn.datasets import load_sample_image

    return load_sample_image("china.jpg")


def encoded(image: Any, kind: str = "JPEG", **options: Any) -> bytes:
    """Returns a Pillow image's file."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pictures() -> dict[str, bytes]:
    """Returns files by what is special about them."""
    from PIL import Image

    photo = Image.fromarray(photograph())
    cmyk = encoded(photo.convert("CMYK"), quality=95)
    palette = photo.convert("P")
    whole = encoded(photo, quality=90)
    corner = np.asarray(palette)[0, 0]
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = (np.asarray(photo.convert("L")).astype(np.uint16) * 257) ^ 0x5A
    odd = photo.crop((0, 0, 501, 375))
    transparent = photo.copy()
    transparent.putalpha(Image.linear_gradient("L").resize(photo.size))
    return {
        "JPEG, colour at half resolution (4:2:0)": encoded(photo, quality=90),
        "JPEG, 4:4:4": encoded(photo, quality=90, subsampling=0),
        "JPEG, progressive": encoded(photo, quality=90, progressive=True),
        "JPEG, 501 × 375": encoded(odd, quality=90),
        "JPEG, grey": encoded(photo.convert("L"), quality=90),
        "JPEG, CMYK with Adobe's marker": cmyk,
        "JPEG, CMYK without it": _without_marker(cmyk),
        "JPEG, EXIF orientation 6": encoded(photo, quality=90, exif=turned),
        "JPEG, the last third missing": whole[: 2 * len(whole) // 3],
        "PNG": encoded(photo, "PNG"),
        "PNG, palette with a transparent colour": encoded(palette, "PNG", transparency=3),
        "PNG, transparency": encoded(transparent, "PNG"),
        "PNG, grey, 16 bits": encoded(Image.fromarray(deep), "PNG"),
        "BMP": encoded(photo, "BMP"),
        "BMP, palette": encoded(palette, "BMP"),
        "GIF": encoded(palette, "GIF"),
        "GIF, transparent colour": encoded(palette, "GIF", transparency=int(corner)),
        "WebP": encoded(photo, "WEBP"),
        "WebP, transparency": encoded(transparent, "WEBP"),
        "TIFF": encoded(photo, "TIFF"),
        "AVIF": encoded(photo, "AVIF"),
    }


def _without_marker(jpeg: bytes) -> bytes:
    """Returns a JPEG without its Adobe segment."""
    start = jpeg.index(b"\xff\xee")
    end = start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big")
    return jpeg[:start] + jpeg[end:]


def decoders(installed: dict[str, bool]) -> dict[str, Decoder]:
    """Returns the decoders of the installed programs, with their defaults, to RGB."""
    import tensorflow as tf
    from PIL import Image

    from convoy.dataloader.images.decoders import decode_image

    def tensorflow(data: bytes) -> np.ndarray:
        image = tf.io.decode_image(data, channels=3, expand_animations=False).numpy()
        return image[0] if image.ndim == 4 else image

    def pillow(data: bytes) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    found: dict[str, Decoder] = {
        "TensorFlow": tensorflow,
        "Pillow": pillow,
        "Convoy": lambda data: decode_image(tf.constant(data)).numpy(),
    }
    if installed["opencv"]:
        import cv2

        def opencv(data: bytes) -> np.ndarray:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            if image is None:
                raise ValueError("None")
            return image[..., ::-1]

        found["OpenCV"] = opencv
    if installed["dali"]:
        found["DALI"] = dali_decode
    if installed["torchvision"]:
        import torch
        from torchvision.io import ImageReadMode
        from torchvision.io import decode_image as decode

        def torchvision(data: bytes) -> np.ndarray:
            content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            return decode(content, ImageReadMode.RGB).permute(1, 2, 0).numpy()

        found["torchvision"] = torchvision
    return found


def dali_decode(data: bytes) -> np.ndarray:
    """Decodes with DALI's defaults, on the CPU."""
    from nvidia.dali import fn

    return dali(lambda x: fn.decoders.image(x), np.frombuffer(data, np.uint8))


def dali(operation: Callable[[Any], Any], given: np.ndarray) -> np.ndarray:
    """Runs one of DALI's operations on the CPU, on one array."""
    from nvidia.dali import Pipeline, fn

    pipeline = Pipeline(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
    with pipeline:
        pipeline.set_outputs(operation(fn.external_source(lambda: [given])))
    pipeline.build()
    return np.array(pipeline.run()[0].at(0))


def cases(installed: dict[str, bool]) -> list[Case]:
    """Returns what each decoder makes of each kind of picture."""
    programs = decoders(installed)

    def bound(data: bytes) -> dict[str, Program]:
        return {name: (partial(lambda d: d(data), decode)) for name, decode in programs.items()}

    found = [ask(what, bound(data), may_refuse=True) for what, data in pictures().items()]
    return [*found, *_greys(installed), _parts()]


def _greys(installed: dict[str, bool]) -> list[Case]:
    """Returns what programs make of a colour JPEG if they are asked for grey."""
    import tensorflow as tf
    from PIL import Image

    data = encoded(Image.fromarray(photograph()), quality=90)
    programs: dict[str, Program] = {
        "TensorFlow": lambda: tf.io.decode_jpeg(data, channels=1).numpy()[..., 0],
        "Pillow, convert": lambda: np.asarray(Image.open(io.BytesIO(data)).convert("L")),
    }
    if installed["opencv"]:
        import cv2

        content = np.frombuffer(data, np.uint8)
        programs["OpenCV"] = lambda: cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)
    if installed["dali"]:
        from nvidia.dali import fn, types

        def grey(x: Any) -> Any:
            return fn.decoders.image(x, output_type=types.GRAY)

        programs["DALI"] = lambda: dali(grey, np.frombuffer(data, np.uint8))[..., 0]
    if installed["torchvision"]:
        import torch
        from torchvision.io import ImageReadMode, decode_image

        content_ = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        programs["torchvision"] = lambda: decode_image(content_, ImageReadMode.GRAY)[0].numpy()
    return [ask("JPEG in colour, decoded to grey", programs)]


def _parts() -> Case:
    """Returns a window of a 4:2:0 JPEG, decoded alone and cut out of the whole."""
    import tensorflow as tf
    from PIL import Image

    data = encoded(Image.fromarray(photograph()), quality=90)
    y, x, h, w = 33, 32, 201, 100
    whole = tf.io.decode_jpeg(data, channels=3).numpy()
    return ask(
        "JPEG 4:2:0, the window of 201 × 100 at (33, 32)",
        {
            "TensorFlow, decode and slice": lambda: whole[y : y + h, x : x + w],
            "TensorFlow, decode_and_crop_jpeg": lambda: tf.image.decode_and_crop_jpeg(
                data, [y, x, h, w], channels=3
            ).numpy(),
        },
    )
