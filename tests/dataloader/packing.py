"""Small images, and helpers for the tests of `dataloader.prepare`."""

import hashlib
import io

import numpy as np
import tensorflow as tf
from PIL import Image

from convoy.dataloader.prepare.__main__ import main


def picture(i, size=(36, 24)):
    rng = np.random.default_rng(i)
    small = Image.fromarray(rng.integers(0, 256, (4, 6, 3), np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def encoded(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def prepare(*arguments):
    return main([str(argument) for argument in arguments])


def read(path):
    """Returns the Examples of a file as TensorFlow reads them, with checks of the checksums."""
    return [
        tf.train.Example.FromString(raw.numpy()).features.feature
        for raw in tf.data.TFRecordDataset(str(path))
    ]


def digests(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.name != "manifest.json"
    }
