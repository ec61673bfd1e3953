"""Class names with unusual characters and encodings."""

import codecs
import os
import unicodedata

import pytest

from convoy.dataloader.errors import DataError
from convoy.dataloader.sources.find import find_source
from tests.dataloader.packing import encoded, picture, prepare

# bytes of the folder's name: the class's name
FOLDERS = {
    b"k\xe4fer": r"k\xe4fer",  # from an old Windows zip file
    unicodedata.normalize("NFD", "löwe").encode(): "löwe",  # from a Mac
    b"two\nlines": r"two\nlines",
    b" spaces ": "spaces",
    "猫".encode(): "猫",
}


@pytest.fixture
def folders(tmp_path):
    """Returns a maker of data folders whose class folders have these names."""

    def make(names=FOLDERS, val=None):
        root = os.fsencode(tmp_path / "data")
        for split, raws in ((b"train", names), (b"val", names if val is None else val)):
            for i, raw in enumerate(raws):
                folder = os.path.join(root, split, raw)
                os.makedirs(folder)
                for k in range(2):
                    with open(os.path.join(folder, b"%d\xe9.jpg" % k), "wb") as file:
                        file.write(encoded(picture(10 * i + k)))
        return os.fsdecode(root)

    return make


def test_class_names_are_printable_and_equal_in_both_splits(folders):
    root = folders(val=[b"k\xe4fer", "löwe".encode()])
    train, val = find_source(root, "train"), find_source(root, "validation")
    assert train.class_names == val.class_names == sorted(FOLDERS.values())
    assert (
        val.labels.tolist()
        == [train.class_names.index(r"k\xe4fer")] * 2 + [train.class_names.index("löwe")] * 2
    )
    assert all(len(source.read([0])[0]) for source in (train, val))  # paths keep their bytes


def test_packed_and_unpacked_data_have_the_same_class_names(folders, tmp_path, capfd):
    root = folders()
    assert prepare("folder", "--data_dir", root, "--out", tmp_path / "out", "--workers", 1) == 0
    one, two = find_source(root, "train"), find_source(tmp_path / "out", "train")
    assert one.class_names == two.class_names
    assert (tmp_path / "out" / "labels.txt").read_text(encoding="utf-8").splitlines() == sorted(
        FOLDERS.values()
    )
    assert prepare("verify", "--data_dir", tmp_path / "out", "--workers", 1) == 0


def test_two_folders_with_names_that_look_alike_are_refused(folders, tmp_path, capsys):
    root = folders([unicodedata.normalize(form, "löwe").encode() for form in ("NFC", "NFD")], [])
    with pytest.raises(DataError, match=r"'lo\\u0308we' and 'l\\xf6we' are both .*'löwe'"):
        find_source(root, "train")
    assert prepare("folder", "--data_dir", root, "--out", tmp_path / "out") == 2
    assert "are both the class" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("käfer\nlöwe\n".encode("latin-1"), r"line 1 has the byte 0xe4\): save it as UTF-8"),
        ("käfer\n\nlöwe\n".encode(), "line 2 is empty"),
        (b"\n\n", "is empty"),
    ],
)
def test_an_unreadable_labels_file_is_refused_by_name(folders, tmp_path, content, says):
    root = folders([b"a", b"b"])
    prepare("folder", "--data_dir", root, "--out", tmp_path / "out", "--workers", 1)
    (tmp_path / "out" / "labels.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"labels\.txt.*{says}"):
        find_source(tmp_path / "out", "train")


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8, codecs.BOM_UTF16_LE])
def test_a_labels_file_is_read_in_common_encodings(folders, tmp_path, mark):
    root = folders([b"a", b"b"])
    prepare("folder", "--data_dir", root, "--out", tmp_path / "out", "--workers", 1)
    text = unicodedata.normalize("NFD", "käfer\r\nform\x0cfeed\r\n\r\n")
    coded = text.encode("utf-16-le" if mark == codecs.BOM_UTF16_LE else "utf-8")
    (tmp_path / "out" / "labels.txt").write_bytes(mark + coded)
    assert find_source(tmp_path / "out", "train").class_names == ["käfer", r"form\x0cfeed"]
