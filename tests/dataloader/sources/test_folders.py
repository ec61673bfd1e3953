"""Common folder layouts are understood, or refused with a fix."""

import io
import logging
import os
import shutil

import pytest
from PIL import Image

from convoy.dataloader.errors import DataError
from convoy.dataloader.sources.find import find_source
from convoy.dataloader.sources.held_out import HeldOut
from tests.dataloader.packing import encoded, picture, prepare


def fill(folder, count=2, name="{}.jpg", start=0):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (folder / name.format(i)).write_bytes(encoded(picture(start + i)))


@pytest.fixture
def make(tmp_path):
    """A function that makes class folders with images: `make("train/cat", "val/cat")`."""

    def run(*folders, root="data", count=2):
        for k, folder in enumerate(folders):
            fill(tmp_path / root / folder, count, start=10 * k)
        return tmp_path / root

    return run


def pack(root, out, *more):
    return prepare("folder", "--data_dir", root, "--out", out, "--workers", 1, *more)


# ---- images and other files ---------------------------------------------------------------------


def test_the_log_counts_used_and_ignored_files(make, caplog):
    root = make("train/cat", "train/dog", "val/cat", "val/dog", "test/cat", count=6)
    fill(root / "train/cat/@eaDir/x", 3)
    fill(root / "train/cat/.thumbnails", 1)
    (root / "train/cat/notes.txt").write_text("")
    (root / "train/dog/.DS_Store").write_text("")
    (root / "train/dog/photo.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
    os.mkfifo(root / "train/dog/pipe.jpg")  # reading it would block forever
    (root / "train/dog/more").symlink_to(root / "test")
    with caplog.at_level(logging.INFO, "convoy.data"):
        source = find_source(root, "train")
    assert source.num_examples == 12
    assert source.found == (
        f"train: 12 images of 2 classes (cat, dog) in {root}/train; left out: 4 files (.heic 1,"
        " .txt 1, hidden 1, not regular files 1) and 3 folders (@eaDir 1, hidden 1, links 1);"
        " not used: test"
    )
    assert [note.split("train: ")[1] for note in source.notes] == [
        "1 picture is of a kind that is not read and is left out (.heic): convert it to JPEG or PNG"
    ]
    assert [record.message for record in caplog.records] == [source.found, *source.notes]
    caplog.clear()
    find_source(root, "train", tell=None)
    assert not caplog.records


def test_the_content_decides_if_the_extension_is_unknown(make):
    root = make("train/cat", "train/dog")
    cat = root / "train/cat"
    names = ("a.jfif", "b.JPE", "c", "d.jpg.1", "e.jpg?w=600", "000.123", "f.heic", "g.pjpeg")
    for i, name in enumerate(names):
        (cat / name).write_bytes(encoded(picture(100 + i)))
    kinds = {"h.dib": "BMP", "i.bin": "PNG", "j.blob": "GIF", "k.webp": "WEBP", "l.TIF": "TIFF"}
    for i, (name, kind) in enumerate({**kinds, "m.avif": "AVIF", "n": "WEBP"}.items()):
        (cat / name).write_bytes(encoded(picture(200 + i), kind))
    (cat / "readme").write_text("BM is how a text may begin, too")
    (cat / "empty").write_bytes(b"")
    (cat / "x.weights").write_bytes(b"\0" * 100)
    source = find_source(root, "train")
    assert source.num_examples == 4 + len(names) + len(kinds) + 2
    assert "left out: 3 files (.weights 1, empty 1, no ending 1)" in source.found


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train", "valid"),
        ("Train", "Valid"),
        ("TRAINING", "validation"),
        ("training", "Val"),
        ("train", "test"),
        ("train", "dev"),
    ],
)
def test_common_names_of_splits_are_accepted(make, tmp_path, train, val, capsys):
    root = make(*(f"{split}/{name}" for split in (train, val) for name in ("cat", "dog")))
    assert find_source(root, "train").found.endswith(f"in {root}/{train}")
    assert find_source(root, "validation").found.endswith(f"in {root}/{val}")
    assert pack(root, tmp_path / "out") == 0
    assert "Wrote 4 train and 4 validation images" in capsys.readouterr().out


def test_a_test_folder_is_used_for_validation_only_without_another(make, tmp_path, capsys):
    root = make(*(f"{s}/{name}" for s in ("train", "valid", "test") for name in ("cat", "dog")))
    source = find_source(root, "validation")
    assert source.found.endswith(f"in {root}/valid; not used: test")
    assert pack(root, tmp_path / "out") == 0
    assert "WARNING: not packed: test in" in capsys.readouterr().err


def test_two_folders_for_the_same_split_are_refused(make, tmp_path):
    root = make(*(f"{s}/{name}" for s in ("train", "val", "valid") for name in ("cat", "dog")))
    with pytest.raises(DataError, match=r"holds val and valid, and each may be the validation"):
        find_source(root, "validation")
    assert pack(root, tmp_path / "out") == 2
    shutil.rmtree(root / "valid")
    (root / "valid").symlink_to("val")
    assert find_source(root, "validation").num_examples == 4


def test_system_folders_are_not_classes(make, tmp_path):
    root = make("train/cat", "train/dog", "val/cat", "val/dog")
    for name in ("@eaDir", "__MACOSX", "#recycle", "lost+found", "$RECYCLE.BIN", ".ipynb_x"):
        fill(root / "train" / name)
        fill(root / name / "cat")
    assert find_source(root, "train").class_names == ["cat", "dog"]
    assert "not used" not in find_source(root, "train").found
    assert pack(root, tmp_path / "out") == 0


# ---- refused layouts ----------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("inner", ["images", "train"])
def test_an_extra_folder_level_is_refused_by_name(make, tmp_path, split, inner, capsys):
    val = {"images": "images", "train": "val"}[inner]
    root = make(*(f"train/{inner}/{n}" for n in ("cat", "dog")), *(f"val/{val}/{n}" for n in "ab"))
    says = rf"train holds one folder, '{inner}', and in it are folders of images \(cat, dog\)"
    with pytest.raises(DataError, match=says):
        find_source(root, split)
    assert pack(root, tmp_path / "out") == 2
    assert "move them up" in capsys.readouterr().err
    if inner == "images":  # the same without a split
        assert pack(root / "train", tmp_path / "out") == 2


def test_a_single_class_is_refused(make, tmp_path, capsys):
    root = make("train/cat", "val/cat")
    with pytest.raises(DataError, match=r"one class \(cat\), and a classifier needs two or more"):
        find_source(root, "train")
    assert pack(root, tmp_path / "out") == 2
    assert pack(root / "train", tmp_path / "out") == 2


def test_class_folders_that_contain_only_folders_cause_a_warning(make):
    root = make("train/pets/cat", "train/pets/dog", "train/birds/owl", "train/birds/eagle")
    source = find_source(root, "train")
    assert source.class_names == ["birds", "pets"]
    assert "as 'birds' has eagle, owl. If those are the classes, move them up" in source.notes[0]
    tiny = make("train/cat/images", "train/dog/images", root="tiny")  # like Tiny ImageNet
    assert not find_source(tiny, "train").notes


def test_class_folders_without_splits_are_refused_with_the_prepare_command(make, tmp_path, capsys):
    root = make("cat", "dog", "train")  # "train" may be a class here
    with pytest.raises(DataError, match="--validation_fraction") as error:
        find_source(root, "train")
    assert f"prepare folder --data_dir {root} --validation_fraction" in str(error.value)
    assert pack(root, tmp_path / "out", "--validation_fraction", 0.5) == 0
    assert "3 images of 3 classes (cat, dog, train)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("folders", "inside", "says"),
    [
        (["train/cat", "train/dog", "val/cat"], "train", r"seems to be a split itself: give"),
        (["photos/train/cat", "photos/train/dog"], "", r"give --data_dir .*data/photos\."),
        (["train"], "", r"holds images and no class folders: .*train/<class>/\*\.jpg"),
        (
            ["train/cat", "train/dog"],
            "",
            r"Put class folders into .*/val, .*_fraction 0.1, or .*--mode train",
        ),
    ],
)
def test_other_layouts_are_refused_with_the_right_one(make, folders, inside, says):
    root = make(*folders)
    with pytest.raises(DataError, match=says):
        find_source(root / inside, "validation" if "Put" in says else "train")


def test_records_in_split_folders_and_urls_are_refused_with_a_fix(make, tmp_path):
    root = make("cat", "dog")
    pack(root, tmp_path / "records" / "train")
    with pytest.raises(DataError, match=r"train holds TFRecord files: move them into"):
        find_source(tmp_path / "records", "train")
    with pytest.raises(DataError, match=r"--data_dir gs://b/x: data are read from local disks"):
        find_source("gs://b/x", "train")
    assert pack("s3://b/x", tmp_path / "out") == 2


def test_a_class_name_that_looks_like_another_is_shown_in_the_error(make):
    root = make("train/cat", "train/dog", "val/Cat ", "val/dog\u200b")
    with pytest.raises(DataError, match=r"\('.*' and '.*' are written differently\)"):
        find_source(root, "validation")


def test_prepare_warns_about_a_missing_validation_split(make, tmp_path, capsys):
    root = make("train/cat", "train/dog")
    assert pack(root, tmp_path / "one") == 0
    assert "--validation_fraction 0.1 holds a part of each class out" in capsys.readouterr().err
    assert pack(root, tmp_path / "two", "--validation_fraction", 0.5) == 0
    assert "Wrote 2 train and 2 validation images" in capsys.readouterr().out
    assert pack(root / "train", tmp_path / "three", "--validation_fraction", 0) == 0
    assert "Wrote 4 train images of 2 classes" in capsys.readouterr().out
    os.rename(root / "train", root / "val")
    assert pack(root, tmp_path / "four") == 2
    assert "has a validation split" in capsys.readouterr().err


# ---- cached lists -------------------------------------------------------------------------------


@pytest.fixture
def kept(make, monkeypatch):
    """A split whose file list is cached and old enough to be used."""
    from convoy.dataloader.sources import folder_listing

    monkeypatch.setattr(folder_listing, "KEEP_FROM", 4)
    monkeypatch.setattr(folder_listing, "_SETTLED_SECONDS", -1e9)
    root = make("train/cat", "train/dog", "val/cat", "val/dog", count=3)
    (root / "train/dog/deep").mkdir()
    for i, (folder, _, _) in enumerate(os.walk(root)):
        os.utime(folder, (1e9 + i, 1e9 + i))
    assert "list kept" not in find_source(root, "train").found
    assert "; list kept from 2" in find_source(root, "train").found
    return root


def still(root):
    for folder, _, _ in os.walk(root):
        os.utime(folder, (946_684_800, 946_684_800))


@pytest.mark.parametrize("where", ["cat", "dog/deep", "new"])
def test_a_cached_list_is_dropped_when_a_file_is_added_or_removed(kept, where):
    """The modification times are reset, as archives and object stores do it."""
    before = {folder: os.stat(folder).st_mtime_ns for folder, _, _ in os.walk(kept)}
    fill(kept / "train" / where, 1, "more{}.jpg")
    for folder, changed in before.items():
        os.utime(folder, ns=(changed, changed))
    assert find_source(kept, "train").num_examples == 7
    (kept / "train" / where / "more0.jpg").unlink()
    if where == "new":
        (kept / "train" / where).rmdir()
    assert find_source(kept, "train").num_examples == 6


def test_identical_times_do_not_validate_a_cached_list(kept, monkeypatch):
    from convoy.dataloader.sources import folder_listing

    year_2000 = 946_684_800 * 10**9  # as on a mount without real times
    monkeypatch.setattr(folder_listing, "_times", lambda path: [year_2000, year_2000, 1])
    find_source(kept, "train")
    fill(kept / "train/cat", 1, "more{}.jpg")
    assert find_source(kept, "train").num_examples == 7


def test_lists_are_cached_only_on_file_systems_with_reliable_times(kept, monkeypatch):
    from convoy.dataloader.sources import folder_listing

    assert folder_listing._file_system("/proc/self") == "proc"
    monkeypatch.setattr(folder_listing, "_file_system", lambda folder: "fuse.goofys")
    assert "list kept" not in find_source(kept, "train").found


def test_short_lists_are_not_cached(make):
    root = make("train/cat", "train/dog")
    for count in (4, 5):
        assert find_source(root, "train").num_examples == count
        (root / "train/cat/more.jpg").write_bytes(encoded(picture(1)))
        still(root)


def test_image_formats_are_recognised_by_the_first_bytes():
    from convoy.dataloader.images.file_kinds import kind_of

    def saved(kind):
        stream = io.BytesIO()
        Image.new("RGB", (4, 4)).save(stream, kind)
        return stream.getvalue()[:32]

    for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "AVIF"):
        assert kind_of(saved(kind)) == kind
    assert kind_of(saved("WEBP")) == "WebP"
    assert kind_of(saved("JPEG2000")) == "JPEG 2000"
    assert kind_of(b"\0\0\0\x20ftypmp42\0\0\0\0isom") is None
    assert kind_of(b"BMW, Audi, VW and others") is kind_of(b"") is None


@pytest.mark.parametrize("divided", [None, HeldOut(0.3)])
def test_files_of_operating_systems_are_ignored_and_counted(make, divided):
    root = make("cat", "dog", count=4) if divided else make("train/cat", "train/dog", count=4)
    classes = root if divided else root / "train"
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._1.jpg"):
        for folder in (classes, classes / "cat"):
            (folder / name).write_bytes(b"\0\0")
    for name in ("__MACOSX", ".ipynb_checkpoints", "@eaDir"):
        fill(classes / name / "cat", 1)
        fill(classes / "dog" / name, 1)
    sources = [find_source(root, "train", tell=None, held_out=divided)]
    sources += [find_source(root, "validation", tell=None, held_out=divided)] if divided else []
    assert sum(source.num_examples for source in sources) == 8
    assert sources[0].class_names == ["cat", "dog"]
    assert (
        "; left out: 8 files (hidden 4, .db 2, .ini 2) and 6 folders (@eaDir 2, __MACOSX 2,"
        " hidden 2)" in sources[0].found
    )
    assert not any(source.notes for source in sources)
