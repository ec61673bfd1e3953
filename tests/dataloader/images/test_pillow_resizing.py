"""Resizing to the bit as Pillow does, in TensorFlow's operations and in NumPy."""

import itertools

import numpy as np
import PIL
import pytest
import tensorflow as tf
from PIL import Image

from convoy.dataloader.images.eval_crop import PILLOWS
from convoy.dataloader.images.pillow_resizing import pillow_square
from convoy.dataloader.plain import pillow_resizing as plain

KINDS = {name: Image.Resampling[name.upper()] for name in PILLOWS}
PILLOW_13 = int(PIL.__version__.split(".")[0]) >= 13

# Height and width of the picture and of the frame, and the square's side.
SHAPES = {
    "shrunk": (375, 500, 256, 341, 224),
    "tall": (300, 97, 163, 53, 32),
    "tall, and the width grows": (400, 60, 200, 90, 64),
    "wide": (50, 400, 64, 512, 48),
    "grown": (40, 50, 120, 150, 100),
    "squashed": (427, 640, 224, 224, 224),
    "as it is": (64, 80, 64, 80, 64),
    "only the width": (64, 80, 64, 70, 64),
    "one pixel": (1, 1, 8, 8, 8),
    "a line": (1, 300, 8, 2400, 8),
}


@pytest.mark.parametrize(
    ("shape", "interpolation"),
    [
        pytest.param(*pair, marks=[] if "bicubic" in pair or "shrunk" in pair else pytest.mark.slow)
        for pair in itertools.product(SHAPES, PILLOWS)
    ],
)
def test_pixels_equal_those_of_pillow(shape, interpolation):
    if "tall" in shape and interpolation != "nearest" and not PILLOW_13:
        pytest.skip("before Pillow 13 tall pictures were resized along their rows first")
    height, width, *frame, size = SHAPES[shape]
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    y, x = ((side - size) // 2 for side in frame)
    resized = Image.fromarray(image).resize(frame[::-1], KINDS[interpolation])
    want = np.asarray(resized)[y : y + size, x : x + size]
    place = (tf.constant(frame, tf.int64), tf.constant([y, x], tf.int64))
    got = tf.function(pillow_square, autograph=False)(
        tf.constant(image), *place, size, interpolation
    ).numpy()
    assert (got == want).all()
    assert (plain.pillow_square(image, frame, (y, x), size, interpolation) == want).all()


@pytest.mark.parametrize("width", [427, 500, 640, 1024])
def test_nearest_takes_pillows_pixel_where_a_centre_falls_between_two(width):
    """Of 640 pixels for 224, every seventh centre does, and the rounding of a sum decides."""
    row = np.arange(width)
    image = np.stack([row % 256, row // 256, row * 0], -1).astype(np.uint8)[None]
    want = np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.NEAREST))
    place = (tf.constant([224, 224], tf.int64), tf.constant([0, 0], tf.int64))
    got = pillow_square(tf.constant(image), *place, 224, "nearest").numpy()
    assert (got == want).all()
    assert (plain.pillow_square(image, (224, 224), (0, 0), 224, "nearest") == want).all()


@pytest.mark.parametrize("interpolation", PILLOWS)
def test_a_frame_that_the_graph_knows_is_divided_by_to_the_last_bit(interpolation):
    """TensorFlow 2.21 turns x / constant into x * (1 / constant): findings/tensorflow_traced_…"""
    image = np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)
    want = np.asarray(Image.fromarray(image).resize((24, 24), KINDS[interpolation]))

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    def squashed(image):
        place = (tf.constant([24, 24], tf.int64), tf.constant([0, 0], tf.int64))
        return pillow_square(image, *place, 24, interpolation)

    assert (squashed(image).numpy() == want).all()
