"""DALI reads unusual and damaged images as tf.data does."""

import io
import logging

import numpy as np
import pytest
from PIL import Image

from convoy.dataloader.errors import DataError, TooManyBadExamples
from convoy.dataloader.images.eval_crop import EvalCrop

pytest.importorskip("nvidia.dali", reason="DALI is not installed: run make test-dali")
from tests.dali.pairs import DaliLoader, assert_alike, pair
from tests.dali.photographs import photograph
from tests.dataloader.batches import collect
from tests.dataloader.packing import encoded


def unusual():
    """Returns images, by name, that decoders treat differently."""
    pixels = np.asarray(Image.open(io.BytesIO(encoded(Image.linear_gradient("L"), "PNG"))))
    rgb = Image.fromarray(np.stack([pixels, pixels.T, pixels[::-1]], 2)).resize((80, 60))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    deep = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    clear = rgb.convert("RGBA")
    clear.putalpha(0)
    return {
        "CMYK": encoded(rgb.convert("CMYK"), "JPEG"),
        "grey": encoded(rgb.convert("L"), "JPEG"),
        "progressive": encoded(rgb, "JPEG", progressive=True),
        "without subsampling": encoded(rgb, "JPEG", subsampling=0),
        "turned": encoded(rgb, "JPEG", exif=exif),
        "PNG": encoded(rgb, "PNG"),
        "palette": encoded(rgb.quantize(16), "PNG"),
        "16 bits": encoded(deep, "PNG"),
        "transparent": encoded(clear, "PNG"),
        "GIF": encoded(rgb.quantize(16), "GIF"),
        "BMP": encoded(rgb, "BMP"),
    }


@pytest.mark.parametrize("training", [True, False])
def test_unusual_images_decode_as_with_tf_data(tmp_path, writers, training):
    images = unusual()
    writers.dataset(tmp_path / "data", [(image, 0) for image in images.values()], [])
    ours, theirs = map(collect, pair(tmp_path / "data", training))
    assert_alike(ours, theirs)


@pytest.mark.parametrize("method", ["crop", "resize", "squash", "training"])
def test_rotated_images_have_the_same_pixels_as_with_tf_data(tmp_path, writers, method):
    rgb = Image.open(io.BytesIO(unusual()["PNG"]))
    images = []
    for number in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = number
        images += [encoded(rgb, kind, exif=exif) for kind in ("JPEG", "PNG")]
    writers.dataset(tmp_path / "data", [(image, 0) for image in images], [])
    crop = EvalCrop(8, "crop" if method == "training" else method, exif_orientation="apply")
    changes = {"eval_crop": crop, "exif_orientation": "apply"}
    ours, theirs = map(collect, pair(tmp_path / "data", method == "training", **changes))
    assert_alike(ours, theirs)


def damaged(tmp_path, writers, which, damage=lambda image: image[: len(image) // 3]):
    images = [photograph(i) for i in range(20)]
    for i in which:
        images[i] = damage(images[i])
    # One shard keeps the numbers of the examples.
    return writers.dataset(tmp_path / "data", [(image, 3) for image in images], [], shards=1)


@pytest.mark.parametrize(
    "damage",
    [lambda image: image[: len(image) // 3], lambda image: b"", lambda image: b"RIFF0000WEBPVP8 "],
    ids=["truncated", "empty", "WebP"],
)
def test_a_bad_example_keeps_its_slot_with_weight_0(tmp_path, writers, caplog, damage):
    folder = damaged(tmp_path, writers, [4, 17], damage)
    # Crop the whole image: a crop above the cut would decode.
    changes = {"max_bad_examples": 2, "crop_area": (1.0, 1.0), "augmenter": "randaugment"}
    ours, theirs = pair(folder, **changes)
    with caplog.at_level(logging.WARNING, "convoy.data"):
        found = collect(theirs)
    assert sorted(theirs.bad_examples) == [4, 17]
    assert caplog.text.count("weight 0") == 2
    assert_alike(collect(ours), found, level=8.0)  # RandAugment amplifies differences
    assert theirs.bad_examples == ours.bad_examples
    assert found[2][:20].sum() == 18
    assert collect(theirs, 1)[2].sum() == 18


def test_more_bad_examples_than_allowed_raise_an_error(tmp_path, writers):
    folder = damaged(tmp_path, writers, [4, 17])
    with pytest.raises(TooManyBadExamples, match="--max_bad_examples 1 allows 1"):
        collect(pair(folder, max_bad_examples=1, crop_area=(1.0, 1.0))[1])
    with pytest.raises(DataError, match="record at byte"):
        collect(pair(folder, training=False)[1])


@pytest.mark.parametrize("least", [0.05, 1.0])
def test_dali_refuses_no_damaged_image_that_tf_data_accepts(tmp_path, writers, least):
    """In 60 of 120 images random bytes after the header are replaced, and some are cut."""
    rng = np.random.default_rng(7)
    images = [photograph(i % 53) for i in range(120)]
    for i in range(0, 120, 2):
        image = bytearray(images[i])
        for place in rng.integers(200, len(image), rng.integers(1, 6)):
            image[place] = rng.integers(256)
        images[i] = bytes(image[: rng.integers(300, len(image))] if i % 8 == 0 else image)
    folder = writers.dataset(tmp_path / "data", [(image, 3) for image in images], [], shards=1)
    changes = {"crop_area": (least, 1.0), "crop_ratio": (0.5, 2.0), "max_bad_examples": 0.9}
    ours, theirs = pair(folder, **changes)
    expected, found = collect(ours), collect(theirs)
    # DALI accepts a few damaged images that TensorFlow refuses, never the other way round.
    assert theirs.bad_examples.items() <= ours.bad_examples.items()
    assert 5 < len(ours.bad_examples) < 60
    assert len(ours.bad_examples) - len(theirs.bad_examples) <= 2
    both = (expected[2] > 0) & (found[2] > 0)
    assert_alike(*([part[both] for part in loader] for loader in (expected, found)))


def test_images_that_only_dali_refuses_are_decoded_by_tensorflow(data, monkeypatch, caplog):
    """No real file is known for this case, so DALI gets other bytes for two images."""
    run, refused = DaliLoader._run, {photograph(8), photograph(31)}

    def refuse(self, images, *rest):
        return run(self, [b"\xff\xd8" if e in refused else e for e in images], *rest)

    ours, theirs = pair(data, training=False)
    monkeypatch.setattr(DaliLoader, "_run", refuse)
    with caplog.at_level(logging.INFO, "convoy.data"):
        found = collect(theirs)
    assert_alike(collect(ours), found)
    assert caplog.text.count("DALI does not decode it") == 2
    assert not theirs.bad_examples


def test_a_dali_failure_that_no_image_caused_suggests_tfdata(data, monkeypatch):
    loader = pair(data)[1]

    def fail(self, *_):
        if len(_[0]) > 1:
            raise RuntimeError("out of something")
        return np.zeros((1, 48, 48, 3), np.uint8)

    monkeypatch.setattr(DaliLoader, "_run", fail)
    with pytest.raises(DataError, match=r"DALI failed.*--data_backend tfdata"):
        collect(loader)


def test_an_interpolation_that_dali_lacks_suggests_tfdata(data):
    with pytest.raises(DataError, match="--data_backend tfdata"):
        pair(data, interpolation="lanczos3")
