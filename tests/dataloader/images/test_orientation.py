"""EXIF orientation: every decoder gives the pixels of Pillow's `exif_transpose`."""

import contextlib
import functools
import io
import random

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from convoy.dataloader import native
from convoy.dataloader.images import exif
from convoy.dataloader.images.by_pillow import decode
from convoy.dataloader.images.crops import eval_decode, random_crop_decode
from convoy.dataloader.images.decoders import as_rgb, decode_image, decode_window, tensorflow_only
from convoy.dataloader.images.eval_crop import EvalCrop
from convoy.dataloader.images.orientation import orientation
from convoy.dataloader.loader import build_dataset
from convoy.dataloader.options import InputOptions
from convoy.dataloader.prepare.images import Recoding, recode
from tests.dataloader.packing import encoded, picture

SIZE = (61, 38)
ALL = range(1, 9)
WITH = pytest.mark.parametrize("how", ["native", "tensorflow", "python"])


def stored(kind, number, seed=1, **more):
    """Returns an image in one format with this orientation."""
    tags = Image.Exif()
    tags[0x010F], tags[0x0112] = "Phone & Sons", number
    if kind in ("WEBP", "AVIF"):
        more |= {"lossless": True} if kind == "WEBP" else {"quality": 90}
    return encoded(picture(seed, SIZE), kind, exif=tags, **more)


def transposed(content):
    """Returns Pillow's pixels of an image, upright."""
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))


STRING = [tf.TensorSpec([], tf.string)]
READERS = {
    how: tf.function(
        functools.partial(orientation, alone=how == "tensorflow"), STRING, autograph=False
    )
    for how in ("native", "tensorflow", "python")
}


def read(content, how):
    """Reads the orientation in a traced function, as the pipeline does."""
    if how == "native":
        assert native.load() is not None, "the native operations are not built"
        return int(READERS[how](tf.constant(content)))
    with native.disabled():
        return int(READERS[how](tf.constant(content)))


# ---- the orientation number -------------------------------------------------------------------


@WITH
def test_the_orientation_is_read_from_jpegs_and_pngs(how):
    for number in ALL:
        for kind in ("JPEG", "PNG"):
            assert read(stored(kind, number), how) == number
    plain = encoded(picture(1))
    tags = exif.exif_with(6)
    motorola = b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\7\0\0\0\0\0\0"
    behind = b"\xff\xd8\xff\xff\xfe\0\5abc\xff\1\xff\xe1\0\6http" + segment(tags) + plain[2:]
    assert read(plain[:2] + segment(motorola) + plain[2:], how) == 7
    assert read(behind, how) == 6
    png = encoded(picture(1), "PNG")
    chunk = len(tags[6:]).to_bytes(4, "big") + b"eXIf" + tags[6:] + bytes(4)
    assert read(png[:-12] + chunk + png[-12:], how) == 6  # after the pixels
    for none in (plain, png, b"", b"\xff\xd8", plain[:20], b"GIF89a", b"\x89PNG\r\n\x1a\n"):
        assert read(none, how) == 1


def segment(data):
    return b"\xff\xe1" + (len(data) + 2).to_bytes(2, "big") + data


def test_all_readers_agree_on_damaged_headers_and_never_fail():
    chance = random.Random(7)
    for kind, mark in (("JPEG", b"Exif"), ("PNG", b"eXIf")):
        for _ in range(150):
            content = bytearray(stored(kind, chance.randint(1, 8)))
            start = content.find(mark)
            for _ in range(chance.randint(1, 3)):
                at = chance.choice([start + chance.randrange(50), chance.randrange(len(content))])
                content[at] = chance.choice([0, 1, 6, 255, chance.randrange(256)])
            content = bytes(content[: chance.choice([len(content), chance.randrange(200)])])
            numbers = {read(content, how) for how in READERS}
            assert len(numbers) == 1, content[:80]
            assert numbers <= set(ALL)
    for data in (b"", b"Exif\0\0", b"II*\0", b"II*\0\x08\0\0\0", b"II*\0\xff\xff\xff\xff\1\0"):
        assert exif.of_exif(data) == 1
    for number in ALL:
        assert exif.of_exif(exif.exif_with(number)) == number


# ---- pixels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_whole_images_are_upright_as_in_pillow(kind):
    for number in ALL:
        content = stored(kind, number)
        upright = transposed(content)
        assert upright.shape[0] == (SIZE[1] if number < 5 else SIZE[0])
        found = decode_image(tf.constant(content), True)
        np.testing.assert_array_equal(found, upright, f"{kind} {number}")
        np.testing.assert_array_equal(decode(content, upright=True), upright)
        png, shape = as_rgb(tf.constant(content), True)
        assert shape.numpy().tolist() == list(upright.shape[:2])
        np.testing.assert_array_equal(decode_image(png), upright)


def test_windows_are_cut_from_the_upright_image():
    """JPEGs are decoded in part, and the pixels must still be equal to the bit.

    Numbered pixels show where the window lies in the stored image.
    """
    rows, columns = SIZE[1], SIZE[0]
    places = Image.fromarray(np.arange(rows * columns, dtype=np.int32).reshape(rows, columns))
    for number in ALL:
        places.getexif()[0x0112] = number
        turned = np.asarray(ImageOps.exif_transpose(places))
        y, x, h, w = 5, 9, 20, 13
        ids = turned[y : y + h, x : x + w]
        top, left = divmod(int(ids.min()), columns)
        bottom, right = divmod(int(ids.max()), columns)
        box = [top, left, bottom - top + 1, right - left + 1]
        content = stored("JPEG", number)
        plain = decode_window(tf.constant(content), lambda _, box=box: tf.constant(box)).numpy()
        plain = Image.fromarray(plain)
        plain.getexif()[0x0112] = number
        shapes = []

        def window(shape, shapes=shapes):
            shapes.append(shape)
            return tf.constant([5, 9, 20, 13])

        found = decode_window(tf.constant(content), window, True)
        np.testing.assert_array_equal(found, np.asarray(ImageOps.exif_transpose(plain)))
        assert shapes[-1].numpy().tolist() == list(turned.shape)


@WITH
@pytest.mark.parametrize("method", ["crop", pytest.param("resize", marks=pytest.mark.slow)])
def test_crops_equal_those_of_the_upright_image(method, how):
    crop = EvalCrop(padding=4, method=method, exif_orientation="apply")
    seed = tf.constant([3, 4])

    @functools.partial(tf.function, autograph=False, input_signature=STRING)
    def both(content):
        one = eval_decode(content, 24, crop)
        return one, random_crop_decode(content, seed, 24, hflip=0.5, turn=True)

    with contextlib.ExitStack() as stack:
        if how != "native":
            stack.enter_context(native.disabled())
        if how == "tensorflow":  # as in an exported model
            stack.enter_context(tensorflow_only())
        for number in ALL:
            content = stored("PNG", number)
            upright = encoded(Image.fromarray(transposed(content)), "PNG")
            found, expected = both(tf.constant(content)), both(tf.constant(upright))
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(a, b)


def test_an_ignored_orientation_changes_nothing():
    for kind in ("JPEG", "PNG", "WEBP", "AVIF"):
        plain = np.asarray(Image.open(io.BytesIO(stored(kind, 1))).convert("RGB"))
        for number in (3, 6):
            content = stored(kind, number)
            np.testing.assert_array_equal(decode_image(tf.constant(content)), plain)
    assert EvalCrop(padding=3) == EvalCrop(padding=3, exif_orientation="ignore")
    with pytest.raises(ValueError, match="exif_orientation is apply or ignore, not 'yes'"):
        InputOptions(exif_orientation="yes")


@pytest.mark.parametrize("training", [True, False])
def test_loaders_of_rotated_and_of_upright_files_give_the_same_batches(tmp_path, training):
    """One folder has rotated files with EXIF, the other the same images upright without it."""
    for name in ("turned", "upright"):
        for number in ALL:
            folder = tmp_path / name / ("train" if training else "val") / "ab"[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            content = stored("PNG", number, seed=number)
            if name == "upright":
                content = encoded(Image.fromarray(transposed(content)), "PNG")
            (folder / f"{number}.png").write_bytes(content)
    crop = EvalCrop(padding=4, exif_orientation="apply")
    how = {"image_size": 24, "batch_size": 8, "exif_orientation": "apply", "eval_crop": crop}
    split = "train" if training else "val"
    batches = [
        next(iter(build_dataset(tmp_path / name, split, InputOptions(**how), training=training)
                  .batches(0)))
        for name in ("turned", "upright")
    ]  # fmt: skip
    for a, b in zip(*batches, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("how", [Recoding(resize_short=20), Recoding(quality=90), Recoding()])
def test_packing_keeps_the_orientation(kind, how):
    for number in (1, 6):
        content = stored(kind, number)
        packed, _ = recode(content, how)
        whole, _ = recode(encoded(Image.fromarray(transposed(content)), "PNG"), how)
        pixels = transposed(packed)
        if kind != "TIFF":  # Pillow rotates a TIFF when it opens it
            image = Image.open(io.BytesIO(packed))
            assert exif.orientation(image) == number
        expected = np.asarray(Image.open(io.BytesIO(whole)).convert("RGB")).astype(int)
        assert pixels.shape == expected.shape
        assert np.abs(pixels - expected).mean() < 4
