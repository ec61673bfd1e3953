"""Resizing and crops: sizes, offsets and pixels."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from benchmarks.agreement.case import Case, Program, ask
from benchmarks.agreement.pictures import dali, photograph


def cases(installed: dict[str, bool]) -> list[Case]:
    """Returns sizes and offsets by arithmetic, then pixels by kind of resizing."""
    return [*_sides(installed), *_offsets(installed), *_pixels(installed), _tall()]


def _blank(height: int, width: int) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


def _sides(installed: dict[str, bool]) -> list[Case]:
    """Returns the long side after the short one became 256."""
    import tensorflow as tf
    from PIL import Image

    from convoy.dataloader.images.crops import eval_frame
    from convoy.dataloader.images.eval_crop import EvalCrop

    found = []
    for height, width in ((427, 640), (500, 375), (333, 500)):
        image = Image.fromarray(_blank(height, width))
        shape = tf.constant([height, width])
        programs: dict[str, Program] = {
            "Convoy": partial(
                lambda given: eval_frame(given, 224, EvalCrop(32, "resize"))[0].numpy(), shape
            )
        }
        if installed["timm"]:
            from torchvision.transforms import v2

            programs["torchvision, timm"] = partial(
                lambda im: np.array(v2.functional.resize(im, [256]).size[::-1]), image
            )
        if installed["dali"]:
            from nvidia.dali import fn

            programs["DALI"] = partial(
                lambda h, w: np.array(
                    dali(lambda x: fn.resize(x, resize_shorter=256.0), _blank(h, w)).shape[:2]
                ),
                height,
                width,
            )
        if installed["transformers"]:
            from transformers.image_transforms import get_resize_output_image_size

            programs["transformers"] = partial(
                lambda im: np.array(
                    get_resize_output_image_size(np.asarray(im), 256, default_to_square=False)
                ),
                image,
            )
        found.append(ask(f"{height} × {width}, the short side to 256: height, width", programs))
    return found


def _offsets(installed: dict[str, bool]) -> list[Case]:
    """Returns where the centre's 224 pixels begin."""
    import tensorflow as tf
    from PIL import Image

    from convoy.dataloader.images.crops import eval_frame
    from convoy.dataloader.images.eval_crop import EvalCrop

    found = []
    for side in (501, 383, 341):
        ramp = np.broadcast_to(np.arange(side)[None, :, None] // 2, (224, side, 3)).astype(np.uint8)
        marked = np.ascontiguousarray(ramp)
        marked[..., 1] = np.arange(side)[None] % 256  # the column's number
        marked[..., 2] = np.arange(side)[None] // 256

        def first(image: np.ndarray) -> np.ndarray:
            return np.array([int(image[0, 0, 1]) + 256 * int(image[0, 0, 2])])

        programs: dict[str, Program] = {
            "Convoy": partial(
                lambda s: eval_frame(tf.constant([224, s]), 224, EvalCrop(0, "resize"))[1].numpy()[
                    1:
                ],
                side,
            ),
            "tf.image, resize_with_crop_or_pad": partial(
                lambda m: first(tf.image.resize_with_crop_or_pad(m, 224, 224).numpy()), marked
            ),
        }
        if installed["keras"]:
            import keras

            layer = keras.layers.CenterCrop(224, 224)
            programs["Keras, CenterCrop"] = partial(
                lambda m, c: first(np.asarray(c(m))), marked, layer
            )
        if installed["timm"]:
            from torchvision.transforms import v2

            programs["torchvision, timm"] = partial(
                lambda m: first(
                    np.asarray(v2.functional.center_crop(Image.fromarray(m), [224, 224]))
                ),
                marked,
            )
        if installed["dali"]:
            from nvidia.dali import fn

            programs["DALI"] = partial(
                lambda m: first(dali(lambda x: fn.crop(x, crop=(224, 224)), m)), marked
            )
        found.append(ask(f"the centre's 224 of {side} pixels: the first", programs))
    return found


def _pixels(installed: dict[str, bool]) -> list[Case]:
    """Returns 375 × 500 pixels resized to 224 × 224."""
    import tensorflow as tf
    from PIL import Image

    photo = np.ascontiguousarray(photograph()[20:395, 60:560])
    image = Image.fromarray(photo)

    def pillow(kind: str) -> Program:
        return lambda: np.asarray(image.resize((224, 224), Image.Resampling[kind]))

    def tensorflow(kind: str, antialias: bool = False) -> Program:
        def run() -> np.ndarray:
            small = tf.image.resize(photo, [224, 224], kind, antialias=antialias)
            return tf.cast(tf.round(tf.clip_by_value(small, 0, 255)), tf.uint8).numpy()

        return run

    filtered = {"bilinear": {}, "bicubic": {}, "plain bilinear": {}, "nearest": {}}  # type: dict[str, dict[str, Program]]
    for kind in ("bilinear", "bicubic"):
        filtered[kind]["Pillow"] = pillow(kind.upper())
        filtered[kind]["TensorFlow, antialias"] = tensorflow(kind, True)
    filtered["plain bilinear"]["TensorFlow"] = tensorflow("bilinear")
    filtered["nearest"] |= {"Pillow": pillow("NEAREST"), "TensorFlow": tensorflow("nearest")}
    _add_convoy(filtered, photo)
    for add, name in ((_add_opencv, "opencv"), (_add_torchvision, "timm"), (_add_dali, "dali")):
        if installed[name]:
            add(filtered, photo)
    if installed["keras"]:
        _add_keras(filtered, photo)
    told = {
        "bilinear": "375 × 500 to 224 × 224, bilinear, filtered for shrinking",
        "bicubic": "… bicubic, filtered for shrinking",
        "plain bilinear": "… bilinear, without a filter",
        "nearest": "… nearest neighbour",
    }
    return [ask(told[kind], programs) for kind, programs in filtered.items()]


Kinds = dict[str, dict[str, Program]]


def _add_convoy(filtered: Kinds, photo: np.ndarray) -> None:
    import tensorflow as tf

    from convoy.dataloader.images.pillow_resizing import pillow_square
    from convoy.dataloader.images.resizing import resize

    place = tf.constant([224, 224], tf.int64), tf.constant([0, 0], tf.int64)
    filtered["plain bilinear"]["Convoy"] = lambda: resize(tf.constant(photo), [224, 224]).numpy()
    for kind in ("bilinear", "bicubic", "nearest"):
        filtered[kind]["Convoy like timm, Keras"] = partial(
            lambda k: pillow_square(tf.constant(photo), *place, 224, k).numpy(), kind
        )


def _add_opencv(filtered: Kinds, photo: np.ndarray) -> None:
    import cv2

    flags = {
        "plain bilinear": ("OpenCV, INTER_LINEAR", cv2.INTER_LINEAR),
        "bilinear": ("OpenCV, INTER_AREA", cv2.INTER_AREA),
        "nearest": ("OpenCV, INTER_NEAREST", cv2.INTER_NEAREST),
    }
    for kind, (name, flag) in flags.items():
        filtered[kind][name] = partial(
            lambda f: cv2.resize(photo, (224, 224), interpolation=f), flag
        )


def _add_torchvision(filtered: Kinds, photo: np.ndarray) -> None:
    import torch
    from torchvision.transforms import InterpolationMode, v2

    tensor = torch.from_numpy(photo).permute(2, 0, 1)

    def resized(mode: Any, antialias: bool) -> Program:
        return lambda: (
            v2.functional.resize(tensor, [224, 224], mode, antialias=antialias)
            .permute(1, 2, 0)
            .numpy()
        )

    filtered["bilinear"]["torchvision, tensor"] = resized(InterpolationMode.BILINEAR, True)
    filtered["bicubic"]["torchvision, tensor"] = resized(InterpolationMode.BICUBIC, True)
    filtered["plain bilinear"]["torchvision, tensor, antialias=False"] = resized(
        InterpolationMode.BILINEAR, False
    )
    filtered["nearest"]["torchvision, tensor, NEAREST"] = resized(InterpolationMode.NEAREST, False)
    filtered["nearest"]["torchvision, tensor, NEAREST_EXACT"] = resized(
        InterpolationMode.NEAREST_EXACT, False
    )


def _add_dali(filtered: Kinds, photo: np.ndarray) -> None:
    from nvidia.dali import fn, types

    kinds = {
        "bilinear": ("DALI", types.INTERP_LINEAR, True),
        "bicubic": ("DALI", types.INTERP_CUBIC, True),
        "plain bilinear": ("DALI, antialias=False", types.INTERP_LINEAR, False),
        "nearest": ("DALI", types.INTERP_NN, False),
    }
    for kind, (name, code, antialias) in kinds.items():
        filtered[kind][name] = partial(
            lambda c, a: dali(
                lambda x: fn.resize(x, size=[224, 224], interp_type=c, antialias=a), photo
            ),
            code,
            antialias,
        )


def _add_keras(filtered: Kinds, photo: np.ndarray) -> None:
    import keras

    for kind, antialias in (("bilinear", True), ("bicubic", True), ("nearest", False)):
        layer = keras.layers.Resizing(224, 224, kind, antialias=antialias)
        name = f"Keras, Resizing{', antialias' if antialias else ''}"
        filtered[kind][name] = partial(
            lambda r: np.clip(np.round(np.asarray(r(photo))), 0, 255), layer
        )
    plain = keras.layers.Resizing(224, 224)
    filtered["plain bilinear"]["Keras, Resizing"] = lambda: np.round(np.asarray(plain(photo)))


def _tall() -> Case:
    """Returns a tall picture, resized by Pillow in one call and in two: columns, then rows."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(photograph()[:, 200:400]))
    bicubic = Image.Resampling.BICUBIC
    return ask(
        "427 × 200 to 213 × 100, Pillow, bicubic",
        {
            "in one call": lambda: np.asarray(image.resize((100, 213), bicubic)),
            "rows, then columns": lambda: np.asarray(
                image.resize((100, 427), bicubic).resize((100, 213), bicubic)
            ),
            "columns, then rows": lambda: np.asarray(
                image.resize((200, 213), bicubic).resize((100, 213), bicubic)
            ),
        },
    )
