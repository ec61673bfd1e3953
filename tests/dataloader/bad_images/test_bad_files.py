"""Bad files in folders and records are left out and named."""

import os
import re
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from convoy.dataloader.errors import DataError, TooManyBadExamples
from convoy.dataloader.loader import InputOptions, Loader
from convoy.dataloader.sources.find import find_source
from convoy.dataloader.tfrecord import crc
from convoy.dataloader.tfrecord.example import encode_example
from tests import records
from tests.dataloader.bad_images.pictures import adobe_cmyk, jpeg_claiming, png_claiming
from tests.dataloader.packing import encoded


def folder_of(root, files):
    """Makes an image folder of two classes with these files among good ones."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("ant", "bee"):
            (root / split / name).mkdir(parents=True)
            for i in range(8):
                pixels = rng.integers(0, 256, (20, 30, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.jpg")
    for name, data in files.items():
        (root / "train" / "bee" / name).write_bytes(data)
    return root


def epoch(loader):
    return np.concatenate([weights.numpy() for _, _, weights in loader.batches(0)])


OPTIONS = InputOptions(image_size=16, batch_size=4, num_workers=2)


def loader_of(root, split="train", **changes):
    source = find_source(root, split)
    options = InputOptions(**({**vars(OPTIONS), "max_bad_examples": 50} | changes))
    return Loader(source, options, training=split == "train")


def test_every_bad_file_is_counted_and_named_with_a_reason(tmp_path, photo):
    palette = photo.convert("P")
    bad = {
        "zero.JPEG": (b"", "the image has no bytes"),
        "heic.JPEG": (b"\0\0\0\x18ftypheic" + bytes(40), "is HEIC, which is not read: convert"),
        "cut.webp": (encoded(photo, "WEBP")[:100], "damaged"),
        "cut.gif": (encoded(photo, "GIF")[:900], "damaged"),
        "deep.tif": (encoded(Image.new("F", (4, 4)), "TIFF"), "32 bits a channel"),
        "short.jpg": (encoded(photo)[:300], "."),
        "short.png": (encoded(photo, "PNG")[:60], "."),
        "stub.png": (b"\x89PNG", "."),
        "stub.bmp": (b"BM", "."),
        "text.jpg": (b"this is no picture", "not a picture of a kind that is read"),
        "start.jpg": (b"\xff\xd8", "."),
        "huge.png": (png_claiming(20_000, 20_000), "--resize_short"),
        "huge.jpg": (jpeg_claiming(photo, 20_000, 20_000), "--resize_short"),
    }
    good = {"png.JPEG": encoded(photo, "PNG"), "cmyk.jpg": adobe_cmyk(photo)}
    good |= {"webp.JPEG": encoded(photo, "WEBP"), "palette.bmp": encoded(palette, "BMP")}
    files = {name: data for name, (data, _) in bad.items()} | good
    loader = loader_of(folder_of(tmp_path, files))
    assert epoch(loader).sum() == 16 + len(good)
    named = {Path(text.split(": ")[0]).name: text for text in loader.bad_examples.values()}
    assert sorted(named) == sorted(bad)
    for name, (_, words) in bad.items():
        assert re.search(words, named[name]), named[name]
    with pytest.raises(TooManyBadExamples, match="--max_bad_examples 3 allows 3"):
        epoch(loader_of(tmp_path, max_bad_examples=3))


def records_of(root, payloads, split="train", damage=None):
    root.mkdir(exist_ok=True)
    path = root / f"{split}-00000-of-00001"
    records.write(path, payloads)
    if damage is not None:
        content = bytearray(path.read_bytes())
        path.write_bytes(damage(content))
    (root / "labels.txt").write_text("a\nb\n")
    return root


def payloads(photo, count=12):
    image = encoded(photo)
    return [encode_example({"image/encoded": image, "image/class/label": 1}) for _ in range(count)]


def test_records_with_a_wrong_label_type_or_missing_keys_are_left_out(tmp_path, photo):
    image = encoded(photo)
    float_label = tf.train.Example()
    float_label.features.feature["image/encoded"].bytes_list.value.append(image)
    float_label.features.feature["image/class/label"].float_list.value.append(1.0)
    two = tf.train.Example()
    two.features.feature["image/encoded"].bytes_list.value.append(image)
    two.features.feature["image/class/label"].int64_list.value.extend([1, 2])
    wrong = [
        encode_example({"image/encoded": image, "image/class/label": b"1"}),
        float_label.SerializeToString(),
        two.SerializeToString(),
        encode_example({"image/encoded": image}),
        encode_example({"image/class/label": 1}),
        encode_example({"image/encoded": 5, "image/class/label": 1}),
        b"",
        b"\xff\xff\xff",
    ]
    loader = loader_of(records_of(tmp_path / "data", payloads(photo) + wrong))
    assert epoch(loader).sum() == 12
    assert sorted(loader.bad_examples) == list(range(12, 20))
    assert all("record at byte" in text for text in loader.bad_examples.values())


def test_training_uses_the_complete_records_of_a_truncated_file(tmp_path, photo):
    root = records_of(tmp_path / "data", payloads(photo), damage=lambda content: content[:-30])
    loader = loader_of(root)
    assert list(loader.bad_examples) == [11]
    assert epoch(loader).sum() == 11
    with pytest.raises(TooManyBadExamples, match="cut short"):
        loader_of(root, max_bad_examples=0)
    os.rename(root / "train-00000-of-00001", root / "validation-00000-of-00001")
    with pytest.raises(DataError, match=r"(?s)1 of 12 evaluation images.*cut short"):
        loader_of(root, "validation")


@pytest.mark.skipif(not crc.FAST, reason="checksums need google-crc32c")
def test_a_flipped_bit_inside_an_image_is_noticed(tmp_path, photo):
    def flip(content):
        content[len(content) // 2] ^= 4
        return content

    loader = loader_of(records_of(tmp_path / "data", payloads(photo, 13), damage=flip))
    assert epoch(loader).sum() == 12
    assert "checksum is wrong" in loader.bad_examples[6]


def test_missing_classes_in_validation_warn_and_unknown_or_empty_ones_are_refused(
    tmp_path, photo, caplog
):
    root = folder_of(tmp_path / "data", {})
    for file in (root / "val" / "ant").iterdir():
        file.unlink()
    assert find_source(root, "validation").num_classes == 2
    assert "no images of one class: ant" in caplog.text
    (root / "val" / "ant").rmdir()
    assert find_source(root, "validation").labels.tolist() == [1] * 8
    (root / "val" / "cow").mkdir()
    with pytest.raises(DataError, match="'cow' is not a class of the train split"):
        find_source(root, "validation")
    (root / "train" / "empty").mkdir()
    with pytest.raises(DataError, match=r"train/empty: no image in this class folder\. Add"):
        find_source(root, "train")


@contextmanager
def as_nobody():
    """Drops root's rights, since root can read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("what", ["train", "train/bee", "train/bee/deep", "."])
def test_an_unreadable_folder_is_named(photo, what):
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to other users
        os.chmod(place, 0o755)
        root = folder_of(Path(place) / "data", {})
        (root / "train" / "bee" / "deep").mkdir()
        os.chmod(root / what, 0o000)
        try:
            with as_nobody(), pytest.raises(DataError, match=r"cannot be read \(Permission denied"):
                find_source(root, "train")
        finally:
            os.chmod(root / what, 0o755)


def test_an_unreadable_file_is_left_out_and_named(photo):
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        root = folder_of(Path(place) / "data", {})
        os.chmod(root / "train" / "bee" / "3.jpg", 0o000)
        with as_nobody():
            loader = loader_of(root)
            assert epoch(loader).sum() == 15
    assert "bee/3.jpg: cannot be read (Permission denied)" in next(
        iter(loader.bad_examples.values())
    )


def test_with_fewer_examples_than_ranks_each_counts_once(tmp_path, photo):
    """One file of three examples and five ranks: all ranks have the same number of steps."""
    root = records_of(tmp_path / "data", payloads(photo, 3))
    options = InputOptions(image_size=16, batch_size=2, num_workers=1)
    totals, steps = [], []
    for rank in range(5):
        loader = Loader(find_source(root, "train"), options, training=True, rank=rank, world=5)
        weights = epoch(loader)
        totals.append(weights.sum())
        steps.append(len(weights))
    assert sum(totals) == 3
    assert set(steps) == {2}
