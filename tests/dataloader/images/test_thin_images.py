"""Images of extreme shapes: work stays bounded, and results equal those of the whole frame."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from convoy.dataloader import native
from convoy.dataloader.images import resizing
from convoy.dataloader.images.crops import eval_decode, eval_frame
from convoy.dataloader.images.eval_crop import EvalCrop
from convoy.dataloader.images.interpolations import INTERPOLATIONS
from convoy.dataloader.images.resizing import is_large, resize, resize_square


def pixels(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("shape", [(3, 400), (400, 3), (40, 700), (90, 60)])
def test_resizing_a_part_equals_that_part_of_the_resized_frame(
    monkeypatch, interpolation, antialias, shape
):
    """Sides are enlarged and shrunk; the arithmetic differs, so one grey level may too."""
    crop = EvalCrop(padding=8, method="resize", interpolation=interpolation, antialias=antialias)
    image = tf.constant(pixels(*shape))
    frame, start = eval_frame(tf.shape(image)[:2], 24, crop)
    with native.disabled():
        whole = resize_square(image, frame, start, 24, interpolation, antialias).numpy()
        monkeypatch.setattr(resizing, "FRAME_PIXELS", 1)
        monkeypatch.setattr(resizing, "LONGEST_SIDE", 1)
        part = resize_square(image, frame, start, 24, interpolation, antialias).numpy()
    assert np.abs(part.astype(int) - whole).max() <= 1
    assert (part != whole).mean() < 0.02


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_ordinary_images_are_resized_as_before(interpolation):
    crop = EvalCrop(padding=32, method="resize", interpolation=interpolation)
    image = tf.constant(pixels(375, 500))
    frame, start = eval_frame([375, 500], 224, crop)
    assert (frame.numpy().tolist(), start.numpy().tolist()) == ([256, 341], [16, 58])
    whole = resize(image, [256, 341], interpolation).numpy()[16:240, 58:282]
    part = resize_square(image, frame, start, 224, interpolation).numpy()
    assert (part == whole).all()


def test_positions_are_exact_in_an_image_of_40_million_columns():
    """There float32 can represent only every other column."""
    width = 40_000_000
    row = np.zeros((1, width, 3), np.uint8)
    row[0, width // 2 :] = 200
    frame, start = eval_frame([1, width], 16, EvalCrop(padding=0, method="resize"))
    assert frame.numpy().tolist() == [16, 16 * width]
    square = resize_square(tf.constant(row), frame, start, 16).numpy()
    assert np.abs(square - 200 * (np.arange(16)[:, None] + 0.5) / 16).max() <= 0.5


@pytest.mark.parametrize("shape", [(1, 500), (2000, 1), (1, 6000), (20, 20_000), (1, 900_000)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_thin_images_are_decoded(shape, interpolation):
    stream = io.BytesIO()
    Image.new("RGB", shape[::-1], (40, 200, 40)).save(stream, "PNG")
    for method in ("crop", "resize"):
        crop = EvalCrop(method=method, interpolation=interpolation)
        square = eval_decode(tf.constant(stream.getvalue()), 224, crop).numpy()
        assert (square == (40, 200, 40)).all()


def test_a_frame_is_large_by_its_number_of_pixels():
    assert not is_large(tf.constant([256, 4000], tf.int64), 224)
    assert is_large(tf.constant([256, 128_000], tf.int64), 224)
    assert is_large(tf.constant([2**40, 2**40], tf.int64), 224)
    assert not is_large(tf.constant([2048, 3072], tf.int64), 2000)


@pytest.mark.slow
def test_memory_does_not_grow_with_an_extreme_shape(tmp_path):
    """At most 200 MB more than for an ordinary image; whole frames took up to 5 GB."""
    command = [sys.executable, "-m", "benchmarks.costs.thin_images", "--quick", "--json"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(done.stdout)
    assert len(rows) >= 10
    for row in rows:
        assert row["more_mb"] <= 200, row
