"""Files as found in the wild: each is decoded correctly, or left out and named."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from convoy.dataloader.images.by_pillow import MAX_PIXELS, BadImage
from convoy.dataloader.images.crops import eval_decode, random_crop_decode
from convoy.dataloader.images.decoders import as_rgb, decode_image, decode_window, tensorflow_only
from convoy.dataloader.images.eval_crop import EvalCrop
from convoy.dataloader.prepare.images import Recoding, recode
from tests.dataloader.bad_images.pictures import (
    GOOD,
    gif_on_canvas,
    jpeg_claiming,
    png_claiming,
)
from tests.dataloader.packing import encoded

WHOLE = EvalCrop(padding=0, method="crop")


def by_pillow(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("kind", GOOD)
def test_an_unusual_image_has_pillows_pixels(kind, photo):
    data = GOOD[kind](photo)
    assert (decode_image(tf.constant(data)).numpy() == by_pillow(data)).all()


@pytest.mark.parametrize("kind", GOOD)
def test_a_packed_image_decodes_with_tensorflow_alone(kind, photo):
    """It has the pixels that training sees, except for JPEG's losses."""
    data = GOOD[kind](photo)
    packed, name = recode(data, Recoding())
    with tensorflow_only():
        pixels = decode_image(tf.constant(packed)).numpy().astype(int)
    if "transparent" in kind or "canvas" in kind:
        return  # TensorFlow fills the missing parts of GIFs with black, our decoder does not
    lossy = packed != data and name == "jpeg"
    assert abs(pixels - by_pillow(data)).mean() < (3 if lossy else 0.01)
    assert (packed != data and name == "png") == (kind in ("BMP with a palette", "1-bit BMP"))


@pytest.mark.parametrize("what", ["no end", "marker in the data", "IDAT", "IEND", "no chunk left"])
def test_a_damaged_image_that_only_pillow_reads_is_not_packed(what, photo):
    jpeg, png = encoded(photo), encoded(photo, "PNG")
    match what:
        case "no end":
            data = jpeg[:-2]
        case "marker in the data":
            data = jpeg[:-40] + b"\xff\xfe\xff\xff" + jpeg[-36:]
        case "no chunk left":
            data = png[: png.index(b"IEND") - 4]
        case name:
            end = png.index(name.encode()) + 4
            end += int.from_bytes(png[end - 8 : end - 4], "big")
            data = png[:end] + bytes(4) + png[end + 4 :]
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(tf.constant(data))
    with pytest.raises(
        BadImage, match=r"damaged \((it ends before|the checksum of its I|image file is)"
    ):
        recode(data, Recoding())
    assert recode(jpeg, Recoding())[0] == jpeg
    assert recode(png, Recoding())[0] == png


def test_a_transparent_gif_has_its_underlying_colours(photo):
    palette = photo.convert("P")
    data = encoded(palette, "GIF", transparency=int(np.asarray(palette)[0, 0]))
    pixels = decode_image(tf.constant(data)).numpy()
    assert (pixels[0, 0] != 0).any()
    assert (pixels == np.asarray(palette.convert("RGB"))).all()


def test_cmyk_without_adobes_marker_has_pillows_pixels_everywhere(photo):
    """This includes crops, exports, packing and DALI.

    TensorFlow inverts only CMYK that the marker declares inverted, and was up to 255 levels off.
    """
    data = GOOD["CMYK without a marker"](photo)
    expected = by_pillow(data).astype(int)
    assert (tf.io.decode_jpeg(data, channels=3).numpy() != expected).mean() > 0.9
    window = decode_window(tf.constant(data), lambda shape: tf.constant([3, 5, 20, 30])).numpy()
    assert (window == expected[3:23, 5:35]).all()
    with tensorflow_only():
        assert (decode_image(tf.constant(data)).numpy() == expected).all()
    assert (tf.io.decode_png(as_rgb(tf.constant(data))[0]).numpy() == expected).all()
    for recoding in (Recoding(), Recoding(resize_short=20)):
        packed, kind = recode(data, recoding)
        assert kind == "jpeg"
        pixels = decode_image(tf.constant(packed)).numpy().astype(int)
        assert abs(pixels.mean((0, 1)) - expected.mean((0, 1))).max() < 3


def test_formats_that_only_pillow_reads_are_refused_in_exports(photo):
    """Exported models decode with TensorFlow alone."""
    with tensorflow_only():
        assert (decode_image(tf.constant(encoded(photo, "BMP"))).numpy() == photo).all()
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode_image(tf.constant(encoded(photo, "WEBP")))


def test_a_16_bit_png_keeps_its_upper_bits(photo):
    levels = np.arange(2400, dtype=np.uint16).reshape(40, 60) * 27
    data = encoded(Image.fromarray(levels), "PNG")
    assert (decode_image(tf.constant(data)).numpy() == (levels >> 8)[..., None]).all()


def test_transparency_is_ignored(photo):
    """The colours under a transparent pixel are used, as in Pillow's convert."""
    photo = photo.copy()
    photo.putalpha(0)
    data = encoded(photo, "PNG")
    assert (decode_image(tf.constant(data)).numpy() == by_pillow(data)).all()


@pytest.mark.parametrize("kind", ["WEBP", "AVIF"])
def test_a_format_that_this_pillow_lacks_is_named(photo, kind, monkeypatch):
    from convoy.dataloader.images import by_pillow as module

    data = encoded(photo, kind)
    some = tuple(name for name in module._formats() if name != kind)
    monkeypatch.setattr(module, "_formats", lambda: some)
    says = rf"the image is {kind}, and the Pillow here was built without that: pip install -U pillo"
    for read in (module.decode, lambda content: recode(content, Recoding())):
        with pytest.raises(module.BadImage, match=f"(?i){says}"):
            read(data)
    assert kind not in map(str.upper, module.kinds_here())
    assert len(module.kinds_here()) == 6


def test_exif_orientation_is_ignored_unless_asked_for(photo):
    """torchvision and tf.data ignore it too, as did runs before `--exif_orientation`."""
    exif = Image.Exif()
    exif[0x112] = 6  # "rotate by 90 degrees"
    turned, plain = encoded(photo, exif=exif), encoded(photo)
    assert (decode_image(tf.constant(turned)).numpy() == by_pillow(plain)).all()
    one, two = (eval_decode(tf.constant(data), 24, WHOLE).numpy() for data in (turned, plain))
    assert (one == two).all()


def bmp_claiming(photo, width, height):
    data = bytearray(encoded(photo, "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def large(photo):
    side = 20_000
    yield png_claiming(side, side)
    yield jpeg_claiming(photo, side, side)
    yield bmp_claiming(photo, side, side)
    yield bmp_claiming(photo, side, -side)  # negative height: rows from the top
    yield gif_on_canvas(photo, side, side)


def test_a_huge_image_is_refused_by_its_header(photo):
    seed = tf.constant([1, 2])
    for data in map(tf.constant, large(photo)):
        for decode in (
            decode_image,
            lambda data: eval_decode(data, 24, WHOLE),
            lambda data: random_crop_decode(data, seed, 24),
        ):
            with pytest.raises(tf.errors.InvalidArgumentError, match="more than 89478485 pixels"):
                decode(data)


def test_an_image_of_almost_the_maximal_size_is_decoded():
    """It is 60,000 pixels wide and has 84 million pixels."""
    wide = encoded(Image.new("L", (60_000, 1400)))
    assert MAX_PIXELS >= 60_000 * 1400
    assert random_crop_decode(tf.constant(wide), tf.constant([0, 0]), 8).shape == (8, 8, 3)
