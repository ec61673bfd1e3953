"""Unsupported folder layouts are refused with a fix, in training and in `prepare`."""

import os
import tarfile
import zipfile

import pytest

from convoy.dataloader.errors import DataError
from convoy.dataloader.sources.find import find_source
from tests.dataloader.packing import encoded, picture, prepare

PICTURE = encoded(picture(1))


@pytest.fixture
def make(tmp_path):
    """A function that makes files: three images if a path ends in a slash, else an empty file."""

    def run(*paths):
        for path in paths:
            file = tmp_path / "data" / path
            if path.endswith("/"):
                file.mkdir(parents=True)
                for i in range(3):
                    (file / f"{i}.jpg").write_bytes(PICTURE)
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(b"")
        return tmp_path / "data"

    return run


def each(*splits, classes=("cat", "dog")):
    return [f"{split}/{name}/" for split in splits for name in classes]


def pack(root, capsys):
    status = prepare("folder", "--data_dir", root, "--out", f"{root}-out", "--workers", 1)
    return status, capsys.readouterr()


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (each("seg_train", "seg_test"), "'seg_test' and 'seg_train' seem to be splits: call them"),
        (each("trainval", "test"), "'test' and 'trainval' seem to be splits: call them"),
        (each("a/b/train", "a/b/val"), "is a train split in {root}/a/b: give --data_dir {root}/a"),
        (each("images/train", "images/val"), "is a train split in {root}/images: give"),
        (each("cat", "dog", classes=("train", "val")), "into the splits, as {root}/train/cat"),
        (["train/", "test/", "train.csv"], "{root}/train holds images and no class folders"),
        (["train.zip", "val.zip"], "Archives are not read: unpack train.zip, val.zip"),
        (["photos.tar.gz", "README"], "Archives are not read: unpack photos.tar.gz"),
        (["./"], "{root} holds images and no class folders: put them into one folder per class"),
        (["train", *each("x")], "{root}/train is a file, not a folder of class folders"),
    ],
)
def test_an_unsupported_layout_is_refused_with_a_fix(make, paths, says, capsys):
    root = make(*paths)
    with pytest.raises(DataError) as error:
        find_source(root, "train")
    assert says.format(root=root) in str(error.value)
    status, printed = pack(root, capsys)
    assert status == 2
    assert says.format(root=root) in printed.err


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (
            ["val/cat/", "val/dog/", "cat/", "dog/"],
            "Put the class folders (cat, dog) into {root}/tr",
        ),
        (each("test"), "Put class folders into {root}/train, or only evaluate, with --mode eval"),
        (["train/x", *each("val")], "{root}/train holds no class folders"),
        (["images/cat/", "images/dog/", "train.txt"], "folder --data_dir {root}/images --valid"),
        (["cat/", "dog/", "test/"], "folder --data_dir {root} --validation_fraction"),
    ],
)
def test_an_incomplete_layout_is_refused_with_what_is_missing(make, paths, says):
    root = make(*paths)
    with pytest.raises(DataError) as error:
        find_source(root, "train")
    assert says.format(root=root) in str(error.value)


@pytest.mark.parametrize(
    ("train", "val"),
    [("training_set", "test_set"), ("train_images", "val_images"), ("Train-Data", "valid data")],
)
def test_splits_may_be_named_sets_images_or_data(make, train, val, capsys):
    root = make(*each(train, val))
    assert find_source(root, "train").found.endswith(f"in {root}/{train}")
    assert find_source(root, "validation").found.endswith(f"in {root}/{val}")
    assert "Wrote 6 train and 6 validation images" in pack(root, capsys)[1].out


def test_the_plain_split_name_is_preferred(make):
    root = make(*each("train", "train_images", "val", "val_set"))
    source = find_source(root, "validation")
    assert source.found.endswith(f"in {root}/val; not used: train_images, val_set")


def test_a_class_folder_named_train_is_no_split(make, capsys):
    root = make("cars/", "ships/", "rails/train/steam/", "rails/train/diesel/")
    status, printed = pack(root, capsys)
    assert status == 0
    assert "9 images of 3 classes (cars, rails, ships)" in printed.out


# ---- warnings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "split", "says"),
    [
        (["train/", *each("train")], "train", "train: 3 pictures lie in no class folder and are"),
        (
            ["train/birds/owl/", "train/birds/eagle/", "train/cat/"],
            "train",
            "one class folder holds nothing but folders of images, as 'birds' has eagle, owl",
        ),
        (["train/Red fox/", "train/red_fox/"], "train", "'Red fox' and 'red_fox' are two classes"),
        (["train/cat/", "train/dog/", "val/cat/"], "validation", "no images of one class: dog"),
    ],
)
def test_an_ambiguous_layout_causes_a_warning(make, paths, split, says, capsys):
    root = make(*paths)
    (note,) = find_source(root, split).notes
    assert says in note
    status, printed = pack(root, capsys)
    assert status == 0
    assert says in printed.err


def test_images_outside_class_folders_are_counted(make):
    root = make("train/", "train/notes.txt", "train/.x", *each("train"), "train/@eaDir/x/")
    assert find_source(root, "train").found.endswith(
        "left out: 5 files (in no class folder 3, .txt 1, hidden 1) and 1 folder (@eaDir)"
    )


def test_one_image_outside_class_folders_is_reported_in_the_singular(make):
    source = find_source(make("train/x.png", "train/cat/", "train/dog/"), "train")
    assert source.found.endswith("left out: 1 file (in no class folder)")
    (note,) = source.notes
    assert note.endswith("train: 1 picture lies in no class folder and is not used")


def test_a_validation_split_without_images_is_refused(make, capsys):
    root = make(*each("train"), "val/cat/x.txt", "val/dog/x.txt")
    with pytest.raises(DataError, match=r"val: no images in it, but 2 files \(\.txt\)"):
        find_source(root, "validation")
    status, printed = pack(root, capsys)
    assert status == 2
    assert "val: no images in it. Add some, or remove the folder" in printed.err


# ---- links --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("to", "says"), [("..", "which holds it"), ("cat", "is the same folder")])
def test_a_class_folder_that_links_to_another_is_refused(make, to, says, capsys):
    root = make(*each("train", "val"))
    (root / "train/loop").symlink_to(to)
    with pytest.raises(DataError, match=says):
        find_source(root, "train")
    assert pack(root, capsys)[0] == 2


def test_broken_links_are_left_out_and_counted(make, capsys):
    root = make(*each("train", "val"))
    (root / "train/self").symlink_to("self")
    (root / "train/cat/self").symlink_to("self")
    (root / "train/cat/self.jpg").symlink_to("self.jpg")
    (root / "train-00000-of-00001").symlink_to("train-00000-of-00001")
    source = find_source(root, "train")
    assert source.num_examples == 7  # self.jpg counts as a bad image
    assert "left out: 2 files (cannot be read 1, no ending 1)" in source.found
    status, printed = pack(root, capsys)
    assert status == 3
    assert "cat/self.jpg: cannot be read (Too many levels of symbolic links)" in printed.err


def test_links_to_other_folders_are_followed_once(make, tmp_path):
    root = make(*each("train"))
    os.rename(root / "train/cat", tmp_path / "cat")
    (root / "train/cat").symlink_to(tmp_path / "cat")
    os.rename(root / "train", tmp_path / "train")
    (root / "train").symlink_to(tmp_path / "train")
    (root / "val").symlink_to("train")
    assert find_source(root, "train").num_examples == 6
    (note,) = find_source(root, "validation").notes
    assert "val is a link to the train split: its results say nothing" in note


# ---- other kinds of files -----------------------------------------------------------------------


def test_files_of_other_formats_are_refused_by_format(tmp_path):
    path = tmp_path / "train-00000-of-00001.parquet"
    path.write_bytes(b"PAR1" + bytes(60) + b"PAR1")
    with pytest.raises(DataError, match=r"The file is Parquet, which is not read"):
        find_source(tmp_path, "train")
    path.unlink()
    with zipfile.ZipFile(tmp_path / "train-0.tfrecord", "w") as archive:
        archive.writestr("train", PICTURE)
    with pytest.raises(DataError, match=r"The file is an archive: unpack it"):
        find_source(tmp_path, "train")
    with tarfile.open(tmp_path / "data.tar", "w"):
        pass
    with pytest.raises(DataError, match=r"data\.tar is not a folder\. Archives are not read: unp"):
        find_source(tmp_path / "data.tar", "train")


def test_errors_of_the_system_are_reported_by_prepare(make, tmp_path, capsys):
    root = make(*each("train"))
    (tmp_path / "file").write_text("")
    command = ("folder", "--data_dir", root, "--out", tmp_path / "file" / "out", "--workers", 1)
    assert prepare(*command) == 2
    assert capsys.readouterr().err.endswith(f"error: {tmp_path}/file/out: Not a directory\n")
