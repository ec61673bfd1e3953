"""`--validation_fraction`: which images are held out, independent of other files."""

import json
import os

import numpy as np
import pytest

from convoy.dataloader.errors import DataError
from convoy.dataloader.prepare.verify import verify
from convoy.dataloader.sources.find import find_source
from convoy.dataloader.sources.held_out import HeldOut
from tests.dataloader.packing import encoded, picture, prepare

KNOWN = [
    "ant/0.jpg",
    "ant/2.jpg",
    "ant/6.jpg",
    "ant/7.jpg",
    "ant/10.jpg",
    "ant/11.jpg",
    "ant/19.jpg",
]


def names(cls, count, first=0):
    return [f"{cls}/{i}.jpg" for i in range(first, first + count)]


def both(images, held_out):
    return held_out.part(images, "train"), held_out.part(images, "validation")


@pytest.fixture
def classes(tmp_path):
    """Class folders without splits: 12 cats, 20 dogs and one owl."""
    root = tmp_path / "photos"
    for k, (name, count) in enumerate({"cat": 12, "dog": 20, "owl": 1}.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i}.jpg").write_bytes(encoded(picture(100 * k + i)))
    return root


def files_of(root, held_out, split):
    source = find_source(root, split, tell=None, held_out=held_out)
    return {os.path.relpath(file, source.root) for file in source.files}


# ---- the choice -------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5, 0.9])
def test_each_class_holds_out_about_the_fraction(fraction):
    images = {"ant": names("ant", 4000), "bee": names("bee", 1000)}
    train, validation = both(images, HeldOut(fraction))
    for name, files in images.items():
        assert sorted(train[name] + validation[name]) == sorted(files)
        spread = 4 * np.sqrt(fraction * (1 - fraction) * len(files))
        assert abs(len(validation[name]) - fraction * len(files)) < spread


def test_small_classes_are_in_both_splits_and_single_images_in_training():
    for count in (2, 3, 5):
        for seed in range(40):
            for fraction in (0.01, 0.99):
                files = {"ant": names("ant", count), "bee": ["bee/0.jpg"], "none": []}
                train, validation = both(files, HeldOut(fraction, seed))
                assert all((train["ant"], validation["ant"]))
                assert (train["bee"], validation["bee"]) == (["bee/0.jpg"], [])
                assert train["none"] == validation["none"] == []


def test_images_keep_their_split_when_others_are_added_or_removed():
    before = {"ant": names("ant", 300)}
    train, validation = both(before, HeldOut(0.1))
    more, more_held = both({"ant": names("ant", 300, 200) + before["ant"][:200]}, HeldOut(0.1))
    assert set(train["ant"]) <= set(more["ant"])
    assert set(validation["ant"]) <= set(more_held["ant"])
    assert len(more["ant"]) + len(more_held["ant"]) == 500


def test_the_seed_determines_the_split_and_unicode_forms_do_not_matter():
    images = {"ant": names("ant", 200)}
    first = HeldOut(0.3, 0).part(images, "validation")
    assert first == HeldOut(0.3, 0).part(images, "validation")
    assert first != HeldOut(0.3, 1).part(images, "validation")
    # Fixed numbers, so that no later version divides the data of an earlier run differently.
    assert [n for n in first["ant"] if int(n[4:-4]) < 20] == KNOWN
    composed, decomposed = ([f"{a}nt/{i}.jpg" for i in range(99)] for a in ("\xe4", "a\u0308"))
    held = [HeldOut(0.3).part({"": files}, "validation")[""] for files in (composed, decomposed)]
    assert [name[-6:] for name in held[0]] == [name[-6:] for name in held[1]]


# ---- in folders -------------------------------------------------------------------------------


def test_class_folders_without_a_split_are_divided(classes):
    held_out = HeldOut(0.25)
    train, validation = (
        find_source(classes, split, tell=None, held_out=held_out)
        for split in ("train", "validation")
    )
    assert train.class_names == validation.class_names == ["cat", "dog", "owl"]
    assert train.num_examples + validation.num_examples == 33
    assert not set(train.files) & set(validation.files)
    of = "of 3 classes (cat, dog, owl)"
    assert train.found.startswith(f"train: {train.num_examples} images {of}")
    assert train.found.endswith(f"in {classes}, all but those held out")
    assert validation.found.endswith(f"in {classes}, held out by --validation_fraction 0.25")
    said = "owl has one image: it is trained on, and not evaluated"
    assert validation.notes == [f"{classes}: {said}"]
    assert validation.lacking == ["owl"]
    assert {os.path.basename(os.path.dirname(f)) for f in validation.files} == {"cat", "dog"}


def test_classes_with_one_image_are_reported_for_folders_and_lists(classes):
    (classes / "bat").mkdir()
    (classes / "bat" / "0.jpg").write_bytes(encoded(picture(900)))
    listed = [f"{file},{file.parent.name}\n" for file in classes.rglob("*.jpg")]
    (classes / "list.csv").write_text("path,label\n" + "".join(listed))
    said = "2 classes have one image each: they are trained on, and not evaluated (bat, owl)"
    for path in (classes, classes / "list.csv"):
        source = find_source(path, "validation", tell=None, held_out=HeldOut(0.25))
        assert source.notes == [f"{path}: {said}"]
        assert source.lacking == ["bat", "owl"]


def test_a_train_folder_is_divided_like_class_folders_without_it(classes, tmp_path):
    held_out = HeldOut(0.25, 7)
    flat = files_of(classes, held_out, "validation")
    os.mkdir(tmp_path / "data")
    os.rename(classes, tmp_path / "data" / "train")
    assert files_of(tmp_path / "data", held_out, "validation") == flat


@pytest.mark.parametrize("within", ["", "train"])
def test_test_images_are_not_used(classes, tmp_path, within):
    root = classes
    if within:
        root = tmp_path / "data"
        root.mkdir()
        os.rename(classes, root / within)
    (root / "test" / "cat").mkdir(parents=True)
    (root / "test" / "cat" / "1.jpg").write_bytes(encoded(picture(9)))
    source = find_source(root, "validation", tell=None, held_out=HeldOut(0.25))
    assert source.class_names == ["cat", "dog", "owl"]
    assert source.found.endswith("held out by --validation_fraction 0.25; not used: test")
    assert not any("/test/" in file for file in source.files)


def test_data_that_cannot_be_divided_is_refused(classes, tmp_path, writers):
    for fraction in (0, 1, -0.5, 1.5, float("nan")):
        with pytest.raises(DataError, match="--validation_fraction must be above 0 and below 1"):
            HeldOut(fraction)
    for name in ("cat", "dog"):
        (classes / "val" / name).mkdir(parents=True)
    with pytest.raises(DataError, match=r"photos/val is there for validation: leave the flag out"):
        find_source(classes, "train", held_out=HeldOut(0.1))
    with pytest.raises(DataError, match="holds images and no class folders"):
        find_source(tmp_path / "photos" / "owl", "train", held_out=HeldOut(0.1))
    single = tmp_path / "single"
    for name in ("a", "b"):
        (single / name).mkdir(parents=True)
        (single / name / "1.jpg").write_bytes(encoded(picture(9)))
    with pytest.raises(DataError, match="no class has two images"):
        find_source(single, "validation", held_out=HeldOut(0.9))
    records = writers.dataset(tmp_path / "records", writers.digits(4), [])
    with pytest.raises(DataError, match="TFRecord files are divided when they are made"):
        find_source(records, "train", held_out=HeldOut(0.1))
    with pytest.raises(DataError, match="TensorFlow Datasets are divided when they are made"):
        find_source(records, "train", "tfds:x", held_out=HeldOut(0.1))


def test_prepare_packs_the_same_split_as_training(classes, tmp_path, capsys):
    out = tmp_path / "out"
    command = ("folder", "--data_dir", classes, "--out", out, "--workers", 1, "--seed", 3)
    assert prepare(*command, "--validation_fraction", 0.25) == 0
    packed = find_source(out, "validation", tell=None)
    ours = find_source(classes, "validation", tell=None, held_out=HeldOut(0.25, 3))
    contents = {packed.parse(raw, 0)[0] for raw in packed.read(np.arange(packed.num_examples))}
    assert contents == set(ours.read(np.arange(ours.num_examples)))
    assert "owl has one image: it is trained on" in capsys.readouterr().err


def test_verify_reports_images_in_both_splits(classes, capsys):
    (classes / "cat" / "again.jpg").write_bytes((classes / "cat" / "0.jpg").read_bytes())
    given = {"validation_fraction": 0.25, "as_json": True}
    warned = []
    for seed in range(12):  # with some seeds the two copies are in different splits
        assert verify(str(classes), **given, validation_seed=seed) == 0
        report = json.loads(capsys.readouterr().out)
        assert sum(report["examples"].values()) == 34
        warned.append(any("as well" in n for notes in report["warnings"].values() for n in notes))
    assert set(warned) == {True, False}
