"""The warnings about data before the first step; good data causes none."""

import shutil

import numpy as np
import pytest
from PIL import Image

from convoy.dataloader.prepare import twins
from convoy.dataloader.sources.find import find_source
from convoy.runtime.builders.inputs import build_loader
from convoy.runtime.settings.config import Config
from convoy.runtime.train.data_warnings import data_doubts, looks
from tests.runtime.class_folders import write_class_folders


def doubts(data_dir, size=64, **more):
    config = Config(data_dir=str(data_dir), image_size=size, augmenter_name="none", **more)
    train = build_loader(config, "train")
    return data_doubts(train, build_loader(config, "validation", train))


def picture(seed, size, grey=False):
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    return Image.fromarray(pixels).convert("L" if grey else "RGB")


def write(folder, split, classes, size=48, grey=False, ending="png", start=0):
    """Writes a folder of pictures per class; `classes` maps names to numbers of pictures."""
    order = list(classes)

    def make(name, i):
        return picture(start + 1000 * order.index(name) + i, size, grey)

    return write_class_folders(folder, {split: classes}, make, ending)


def test_good_data_cause_no_warning(digits, tmp_path):
    assert doubts(digits.data_dir, 32) == []
    folder = write(tmp_path, "train", {"cat": 6, "dog": 6})
    assert doubts(write(folder, "val", {"cat": 60, "dog": 50}, size=60, start=500)) == []


def test_a_small_evaluation_is_warned_of_with_its_uncertainty(tmp_path):
    folder = write(tmp_path, "train", {"cat": 6, "dog": 6})
    (text,) = doubts(write(folder, "val", {"cat": 10, "dog": 15}, start=500))
    assert "25 images: each is 4.0 points of top-1" in text
    assert "uncertain by ± 10.0 points" in text
    assert doubts(write(folder, "val", {"cat": 100}, start=500)) == []
    for file in list((folder / "val" / "dog").iterdir())[4:]:
        file.unlink()
    (text,) = doubts(folder)
    assert text.startswith("one class of 2 in the evaluation has fewer than 5 images, as dog (4)")


def test_classes_with_a_single_training_image_are_named(tmp_path):
    folder = write(tmp_path, "train", {"cat": 6, "cow": 1, "dog": 6})
    (text,) = doubts(write(folder, "val", {"cat": 60, "cow": 9, "dog": 50}, start=500))
    assert text.startswith("one class of 3 has one training image: cow. Hardly anything is learnt")
    # In a divided set a note has already said that its only image is not evaluated.
    divided = write(tmp_path / "divided", "", {"cat": 100, "cow": 1, "dog": 100})
    assert doubts(divided, validation_fraction=0.6) == []


@pytest.mark.parametrize("kind", ["records", "folders"])
def test_classes_that_one_split_lacks_are_named(kind, writers, tmp_path, capsys):
    """For folders, a note of the source names the missing classes, so there is no warning."""
    if kind == "folders":
        write(tmp_path, "train", {"cat": 3, "cow": 3, "dog": 3})
        write(tmp_path, "val", {"cat": 60, "dog": 50}, start=500)
        assert doubts(tmp_path) == []
        assert find_source(str(tmp_path), "val", tell=None).lacking == ["cow"]
        return
    images = [(np.asarray(picture(i, 48)), 0) for i in range(250)]
    train = [(image, i % 2) for i, (image, _) in enumerate(images[:50])]
    val = [(image, (0, 2)[i % 2]) for i, (image, _) in enumerate(images[50:])]
    names = ["cat", "cow", "dog"]
    found = doubts(writers.dataset(tmp_path / "data", train, val, names=names))
    assert found[0].startswith("no validation images of one class that is trained: cow.")
    assert found[1].startswith("no training images of one class in the evaluation: dog.")
    assert len(found) == 2


def test_missing_classes_that_a_lists_note_names_are_not_warned_of_again(tmp_path):
    write(tmp_path, "one", {"cat": 3, "cow": 3, "dog": 3})
    write(tmp_path, "two", {"cat": 60, "dog": 50}, start=500)
    for split in ("one", "two"):
        files = [(str(file), file.parent.name) for file in (tmp_path / split).rglob("*.*")]
        lines = ["path,label", *(",".join(pair) for pair in files)]
        name = {"one": "train.csv", "two": "val.csv"}[split]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    path = tmp_path / "train.csv"
    source = find_source(str(path), "val", tell=None)
    assert source.notes == [f"{path}: no images of one class: cow"]
    assert doubts(path) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"grey": True}, "training images have colours"),
        ({"size": 20}, "training images are 48 px and validation images 20 px"),
        ({"size": 400}, "training images are 48 px and validation images 400 px"),
        ({"size": 90}, ""),
        ({"ending": "jpg"}, ""),
    ],
)
def test_splits_that_differ_in_colour_or_size_are_warned_of(change, said, tmp_path):
    write(tmp_path, "train", {"cat": 6, "dog": 6})
    found = doubts(write(tmp_path, "val", {"cat": 50, "dog": 50}, start=500, **change), size=32)
    assert len(found) == bool(said)
    assert said in "".join(found)


def test_rgb_pictures_without_colour_count_as_grey(tmp_path):
    folder = tmp_path / "val" / "cat"
    folder.mkdir(parents=True)
    grey = picture(1, 60, grey=True).convert("RGB")
    grey.save(folder / "1.jpg")
    (tmp_path / "val" / "dog").mkdir()
    grey.save(tmp_path / "val" / "dog" / "1.png")
    assert looks(find_source(str(tmp_path), "val", tell=None)).grey == 1.0


def test_a_picture_in_both_splits_is_found_even_in_another_format(tmp_path):
    write(tmp_path, "train", {"cat": 20, "dog": 20}, ending="jpg")
    write(tmp_path, "val", {"cat": 50, "dog": 50}, ending="jpg", start=500)
    train, val = tmp_path / "train", tmp_path / "val"
    shutil.copy(train / "cat" / "3.jpg", val / "cat" / "same.jpg")
    Image.open(train / "dog" / "5.jpg").save(val / "dog" / "anew.png")
    (text,) = doubts(tmp_path)
    assert text.startswith("2 validation images are in the train split too, 1 of them saved again")
    assert f"{val}/cat/same.jpg = {train}/cat/3.jpg; {val}/dog/anew.png = {train}/dog/5." in text


def test_the_search_for_twins_has_a_time_limit_and_skips_large_sets(tmp_path, monkeypatch):
    write(tmp_path, "train", {"cat": 6, "dog": 6})
    shutil.copytree(tmp_path / "train", tmp_path / "val")
    sources = [find_source(str(tmp_path), split, tell=None) for split in ("train", "val")]
    assert twins.look_for_twins(*sources).count == 12
    monkeypatch.setattr(twins, "QUICK_SECONDS", 0.0)
    assert twins.look_for_twins(*sources) is None
    monkeypatch.undo()
    monkeypatch.setattr(twins, "QUICK_IMAGES", 23)
    assert twins.look_for_twins(*sources) is None
