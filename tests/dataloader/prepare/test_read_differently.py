"""`prepare verify --strict` names images from which other programs read other pixels."""

import io
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from convoy.dataloader.images.decoders import decode_image
from convoy.dataloader.prepare.__main__ import main
from convoy.dataloader.prepare.read_differently import read_differently
from tests.dataloader.bad_images.test_unusual_images import GOOD
from tests.dataloader.packing import encoded


@pytest.fixture(scope="module")
def photo():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))


NAMED = {
    "CMYK without a marker": "CMYK without Adobe's marker",
    "BMP with a palette": "a BMP with a palette",
    "1-bit BMP": "a BMP with a palette",
    **dict.fromkeys(("OS/2 BMP", "16-bit BMP"), "a BMP of OS/2 or of 16 bits"),
    "GIF on a larger canvas": "a GIF whose first frame is smaller",
    **dict.fromkeys(("WebP", "WebP with alpha"), "WebP: "),
    **dict.fromkeys(("TIFF", "compressed TIFF", "CMYK TIFF"), "TIFF: "),
    "AVIF": "AVIF: ",
}


@pytest.mark.parametrize("kind", GOOD)
def test_only_kinds_that_programs_read_differently_are_named(kind, photo):
    reason = read_differently(GOOD[kind](photo))
    assert (reason or "").startswith(NAMED.get(kind, ""))
    assert (reason is None) == (kind not in NAMED)


@pytest.mark.parametrize("kind", [kind for kind in GOOD if kind not in NAMED])
def test_tensorflow_reads_the_pixels_of_kinds_that_are_not_named(kind):
    y, x = np.mgrid[:40, :60]
    smooth = Image.fromarray(np.stack([x * 4, y * 6, 255 - x - y], -1).astype(np.uint8))
    data = GOOD[kind](smooth)
    theirs = tf.io.decode_image(data, channels=3, expand_animations=False).numpy().astype(int)
    ours = decode_image(tf.constant(data)).numpy()
    assert theirs.shape == ours.shape
    assert np.abs(theirs - ours).max() <= 8  # its fast DCT


def test_a_turned_picture_and_one_of_16_bits_are_named(photo):
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_differently(encoded(photo, exif=exif)).startswith("EXIF orientation 6: OpenCV")
    palette = photo.convert("P")
    corner = int(np.asarray(palette)[0, 0])
    holes = encoded(palette, "GIF", transparency=corner)
    assert read_differently(holes).startswith("a transparent GIF: ")
    deep = Image.fromarray(np.full((4, 4), 40000, np.uint16))
    assert read_differently(encoded(deep, "PNG")).startswith("16 bits: ")


def test_verify_lists_them_only_if_asked(photo, tmp_path, capsys):
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        (tmp_path / split / "b").mkdir()
        for number, name in enumerate("ab"):
            turned = photo.rotate(90 * number + (45 if split == "val" else 0))
            turned.save(tmp_path / split / name / "1.jpg")
    stream = io.BytesIO()
    photo.save(stream, "WEBP")
    (tmp_path / "train" / "a" / "2.webp").write_bytes(stream.getvalue())
    flags = ["verify", "--data_dir", str(tmp_path), "--workers", "1"]
    assert main(flags) == 0
    capsys.readouterr()
    assert main([*flags, "--strict", "--json"]) == 1
    (one,) = json.loads(capsys.readouterr().out)["different"]
    assert one["file"].endswith("a/2.webp")
    assert main([*flags, "--strict"]) == 1
    printed = capsys.readouterr()
    assert "a/2.webp (train 1): WebP: not every version" in printed.out
    assert "1 read differently by other programs" in printed.err
