"""CSV lists of images are read in common dialects, or refused with file and line."""

import codecs
import json
import os

import numpy as np
import pytest

from convoy.dataloader.errors import DataError
from convoy.dataloader.prepare.verify import verify
from convoy.dataloader.sources.find import find_source
from convoy.dataloader.sources.held_out import HeldOut
from convoy.dataloader.sources.identity import identify, known_again
from tests.dataloader.packing import encoded, picture, prepare


@pytest.fixture
def images(tmp_path):
    """`photos/<class>/<n>.jpg`: 4 cats and 4 dogs."""
    for k, name in enumerate(("cat", "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(4):
            (tmp_path / "photos" / name / f"{i}.jpg").write_bytes(encoded(picture(10 * k + i)))
    return tmp_path / "photos"


def rows(*splits):
    """Yields all images, with a split for each image of a class if any are given."""
    for name in ("cat", "dog"):
        for i in range(4):
            yield [f"{name}/{i}.jpg", name, *splits[i : i + 1]]


def write(path, rows, header="path,label", delimiter=",", mark=b"", encoding="utf-8"):
    lines = [header, *(delimiter.join(row) for row in rows)]
    path.write_bytes(mark + "".join(f"{line}\n" for line in lines).encode(encoding))
    return path


def opened(path, split="train", **more):
    return find_source(str(path), split, tell=None, **more)


SPLITS = ("train", "train", "val", "test")


def test_a_list_with_a_split_column_gives_both_splits(images):
    path = write(images / "list.csv", rows(*SPLITS), "path,label,split")
    train, validation = opened(path), opened(path, "validation")
    assert train.found == (
        f"train: 4 images of 2 classes (cat, dog) in {path}; not used: 2 rows of test"
    )
    assert validation.found.startswith("validation: 2 images of 2 classes (cat, dog) in ")
    assert train.class_names == validation.class_names == ["cat", "dog"]
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert validation.files == [f"{images}/cat/2.jpg", f"{images}/dog/2.jpg"]
    assert train.notes == validation.notes == []
    (content,) = train.read(np.array([3]))
    assert content == (images / "dog" / "1.jpg").read_bytes()
    assert train.place(3) == ("dog/1.jpg", None)
    assert known_again(train, [identify(train, 3)])[0].keys() == {3}


def test_test_rows_are_used_for_validation_only_without_others(images):
    path = write(images / "list.csv", rows("train", "train", "train", "Test"), "file,class,split")
    assert opened(path, "validation").num_examples == 2
    assert "not used" not in opened(path).found


def test_a_list_gives_the_same_examples_as_its_folder_in_any_order_of_rows(images, tmp_path):
    (tmp_path / "data").mkdir()
    os.rename(images, tmp_path / "data" / "train")
    folder = opened(tmp_path / "data")
    path = write(tmp_path / "data" / "train" / "x.csv", list(rows())[::-1])
    source = opened(path)
    assert [os.path.samefile(*pair) for pair in zip(folder.files, source.files, strict=True)]
    np.testing.assert_array_equal(folder.labels, source.labels)
    assert folder.class_names == source.class_names
    held_out = HeldOut(0.3)
    for split in ("train", "validation"):
        of_folder = opened(tmp_path / "data", split, held_out=held_out)
        assert of_folder.files == opened(path, split, held_out=held_out).files
    digest = source.list_digest()
    assert digest == opened(write(path, rows())).list_digest()
    changed = [[name, "cow" if name == "cat/1.jpg" else label] for name, label in rows()]
    assert digest != opened(write(path, changed)).list_digest()


def test_a_list_val_csv_beside_train_csv_is_the_validation_split(images):
    train = write(images / "train.csv", list(rows())[:3] + list(rows())[4:7])
    with pytest.raises(DataError, match=r"no validation split: .*a list val\.csv beside it"):
        opened(train, "validation")
    validation = write(images / "val.csv", list(rows())[3::4])
    assert opened(train).num_examples == 6
    source = opened(train, "validation")
    assert source.found == f"validation: 2 images of 2 classes (cat, dog) in {validation}"
    assert opened(validation, "validation").num_examples == 2  # as given to --mode eval
    with pytest.raises(DataError, match="no train split: add some, or only evaluate"):
        opened(validation)
    write(images / "valid.csv", rows())
    with pytest.raises(DataError, match=r"val\.csv, valid\.csv lie beside .*train\.csv, and each"):
        opened(train, "validation")


@pytest.mark.parametrize(
    ("header", "how"),
    [
        (" Image , TARGET ", {}),
        ("filename;label", {"delimiter": ";"}),
        ("path\tclass", {"delimiter": "\t"}),
        ("sep=;\nfilename;label", {"delimiter": ";"}),  # tells Excel the delimiter
        ('"SEP=,"\r\npath,label', {"mark": codecs.BOM_UTF8}),
        ('"path","label"', {"mark": codecs.BOM_UTF8}),
        ("path,label", {"mark": codecs.BOM_UTF16_LE, "encoding": "utf-16-le"}),
    ],
)
def test_dialects_of_spreadsheets_are_read(images, header, how):
    path = write(images / "list.csv", rows(), header, **how)
    assert opened(path).num_examples == 8
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") if "encoding" not in how else b"")


def test_quotes_commas_blanks_and_empty_lines_are_read(images):
    os.rename(images / "cat" / "0.jpg", images / "cat" / 'a, "b".jpg')
    lines = ["id,path,label", '7,"cat/a, ""b"".jpg", K\xe4tzchen ', "", ",,"]
    lines += ['8,dog/1.jpg,"two\nlines"', f"9,{images}/cat/./1.jpg,Ka\u0308tzchen", ""]
    path = images / "list.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    source = opened(path)
    assert source.class_names == ["K\xe4tzchen", "two\\nlines"]
    assert sorted(map(os.path.basename, source.files)) == ["1.jpg", "1.jpg", 'a, "b".jpg']


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1 must name the columns, one of them path, file, filename, image"),
        ("cat/0.jpg,cat\n", "line 1 must name the columns"),
        ("path,label\n", "names no images"),
        ("path,name\ncat/0.jpg,cat\n", "one of them label, class or target; it has 'path', 'name'"),
        ("path,label,class\na,b,c\n", "the columns 'label' and 'class' may mean the same"),
        ("path,label\ncat/0.jpg,cat\n\ndog/9.jpg,dog\n", "line 4: dog/9.jpg does not exist"),
        ("path,label\ncat/0.jpg,cat\ndog\\0.jpg,dog\n", "line 3: dog.0.jpg .* write / between"),
        ("path,label\ncat,cat\ndog/0.jpg,dog\n", "line 2: cat is not a file"),
        ("path,label\ns3://b/0.jpg,cat\ndog/0.jpg,dog\n", "line 2: s3://b/0.jpg is a URL"),
        ("path,label\ncat/0.jpg,cat\ndog/0.jpg, \n", r"line 3 \(dog/0.jpg\) has no label"),
        ("path,label\ncat/0.jpg,cat\n ,dog\n", "line 3 has no path"),
        ("path,label\ncat/0,1.jpg,cat\n", 'line 2 has 3 fields, .* in "quotes"'),
        ('path,label\ncat/0.jpg,"cat\ndog/0.jpg,dog\n', "line 2 is not a row of a CSV file"),
        (
            "path,label\ncat/0.jpg,cat\ndog/0.jpg,dog\n./cat/0.jpg,dog\n",
            r"line 4: ./cat/0.jpg is 'dog', and 'cat' in .*list.csv, line 2. Keep one",
        ),
        (
            "path,label,split\ncat/0.jpg,cat,train\ndog/0.jpg,dog,dev\ndog/1.jpg,dog,hold\n",
            r"line 4 \(dog/1.jpg\): the split 'hold' is not train, val or test",
        ),
        ("path,label\ncat/0.jpg,cat\ncat/1.jpg,cat\n", r"has one class \(cat\)"),
        (
            "path,label,split\ncat/0.jpg,cat,train\ndog/0.jpg,dog,\n",
            r"line 3 \(dog/0.jpg\) has no split: write train, val or test there, or remove the col",
        ),
        ("path,label\ncat/0.jpg,cat\n~/0.jpg,dog\n", "line 3: ~/0.jpg does not exist: it is look"),
        ("path,label,split\ncat/0.jpg,cat,val\n", "has rows for validation and no train split"),
    ],
)
def test_mistakes_are_refused_with_file_and_line(images, text, says):
    path = images / "list.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=says) as error:
        opened(path)
    assert str(path) in str(error.value)


def test_a_tilde_means_the_home_folder_unless_a_file_has_that_name(images, monkeypatch):
    monkeypatch.setenv("HOME", str(images / "dog"))
    path = write(images / "list.csv", [["cat/0.jpg", "cat"], ["~/1.jpg", "dog"]])
    assert opened(path).files == [f"{images}/cat/0.jpg", f"{images}/dog/1.jpg"]
    (images / "~").mkdir()  # a folder beside the list may have this name
    os.rename(images / "dog" / "1.jpg", images / "~" / "1.jpg")
    assert opened(path).files == [f"{images}/cat/0.jpg", f"{images}/~/1.jpg"]


def test_all_rows_with_missing_images_are_counted(images, monkeypatch):
    """This includes held-out images."""
    monkeypatch.chdir(images.parent)
    listed = [[f"{name}/x{i}.jpg", name] for name in ("cat", "dog") for i in range(15)]
    write(images / "list.csv", [*rows(), *listed])
    for split in ("train", "validation"):
        with pytest.raises(DataError) as error:
            opened("photos/list.csv", split, held_out=HeldOut(0.3))
        assert str(error.value) == (
            "photos/list.csv, line 10: cat/x0.jpg does not exist: relative paths are looked for "
            "beside the list, in photos/ (30 such rows)."
        )


def test_an_evaluation_alone_is_told_how_to_mark_a_list_as_validation(images):
    path = write(images / "list.csv", rows())
    with pytest.raises(DataError, match=r"call it val\.csv, or give it a column split that says v"):
        opened(path, "validation", alone=True)


def test_mistakes_of_the_whole_list_are_refused(images, tmp_path):
    path = images / "list.csv"
    path.write_bytes("path,label\ncat/0.jpg,cat\ndog/0.jpg,K\xe4fer\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"is not UTF-8 text \(line 3 has the byte 0xe4\)"):
        opened(path)
    write(path, rows())
    with pytest.raises(DataError, match=r"no validation split: give it a column split \(train, v"):
        opened(path, "validation")
    with pytest.raises(DataError, match="--first_label is for TFRecord files"):
        opened(path, first_label=0)
    with pytest.raises(DataError, match="is not a folder"):
        opened(path, dataset="tfds:x")
    (images / "list.txt").write_text("cat/0.jpg\n")
    with pytest.raises(
        DataError, match=r"list\.txt is not a folder\. .* \.csv file whose first li"
    ):
        opened(images / "list.txt")
    with pytest.raises(DataError, match=r"missing\.csv does not exist"):
        opened(images / "missing.csv")
    folder = images / "deep"
    folder.mkdir()
    os.rename(path, folder / "list.csv")
    with pytest.raises(DataError, match=rf"If {folder}/list.csv lists images, give --data_d"):
        opened(folder)
    with_val = write(images / "list.csv", rows(*SPLITS), "path,label,split")
    with pytest.raises(DataError, match=r"list\.csv, line 4 is for validation: leave the flag out"):
        opened(with_val, held_out=HeldOut(0.1))


def test_repeated_images_and_images_in_both_splits_cause_warnings(images):
    listed = [*rows(*SPLITS), ["cat/0.jpg", "cat", "train"], ["dog/0.jpg", "dog", "val"]]
    path = write(images / "list.csv", listed, "path,label,split")
    train, validation = opened(path), opened(path, "validation")
    assert (train.num_examples, validation.num_examples) == (4, 3)
    assert train.notes == [f"{path}: one row names an image that is listed already"]
    (note,) = [note for note in validation.notes if "as well" in note]
    assert f"one image is in the train split as well, such as {images}/dog/0.jpg" in note
    listed = [["cat/0.jpg", "cat", "train"], ["dog/0.jpg", "dog", "train"]]
    path = write(path, [*listed, ["dog/1.jpg", "cow", "val"]], "path,label,split")
    with pytest.raises(DataError, match="line 4: 'cow' is not a class of the training images"):
        opened(path, "validation")
    path = write(path, [*listed, ["dog/1.jpg", "dog", "val"]], "path,label,split")
    assert opened(path, "validation").notes == [f"{path}: no images of one class: cat"]


def test_prepare_and_verify_read_lists(images, tmp_path, capsys):
    path = write(images / "list.csv", rows(*SPLITS), "path,label,split")
    out = tmp_path / "packed"
    assert prepare("folder", "--data_dir", path, "--out", out, "--workers", 1) == 0
    assert "Wrote 4 train and 2 validation images of 2 classes" in capsys.readouterr().out
    packed = opened(out, "validation")
    assert packed.class_names == ["cat", "dog"]
    assert sorted(packed.parse(raw, 0)[1] for raw in packed.read(np.arange(2))) == [0, 1]
    write(path, rows())
    assert prepare("folder", "--data_dir", path, "--out", tmp_path / "two", "--workers", 1) == 0
    assert "--validation_fraction 0.1 holds a part" in capsys.readouterr().err
    flags = ("--validation_fraction", 0.3, "--out", tmp_path / "three", "--workers", 1)
    assert prepare("folder", "--data_dir", path, *flags) == 0
    held = opened(path, "validation", held_out=HeldOut(0.3)).num_examples
    assert f"Wrote {8 - held} train and {held} validation" in capsys.readouterr().out
    (images / "dog" / "1.jpg").write_bytes(b"")
    assert verify(str(path), as_json=True) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["examples"] == {"train": 8}
    assert [bad["file"] for bad in report["bad"]] == [f"{images}/dog/1.jpg"]
