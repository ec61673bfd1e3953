"""`--predict_dir`: the files of a folder, a pattern, a list or stdin."""

import codecs
import io
import os
from pathlib import Path

import pytest

from convoy.runtime.predict.find_images import find_images
from convoy.utils.errors import ConfigError
from convoy.utils.text import TextError


def test_images_are_found_in_nested_folders_whatever_the_case_of_their_ending(tmp_path):
    for name in ("b.JPG", "a/x.jpeg", "a/B/y.PNG", "z.gif", "k.Bmp", "notes.txt", ".hidden.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "c.jpg").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    found = [str(path.relative_to(tmp_path)) for path in find_images(tmp_path)]
    assert found == ["a/B/y.PNG", "a/x.jpeg", "b.JPG", "k.Bmp", "z.gif"]
    assert find_images(tmp_path / "b.JPG") == [tmp_path / "b.JPG"]


def test_images_can_be_named_by_a_pattern_a_list_and_stdin(tmp_path, monkeypatch):
    for name in ("b.jpg", "a/x.jpg", "a/y.png", "odd ending.tmp", "[1].jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_text("b.jpg\r\n\nodd ending.tmp\na/\n")
    monkeypatch.chdir(tmp_path)

    def found(where):
        return [str(path) for path in find_images(where)]

    assert found("**/*.jpg") == ["[1].jpg", "a/x.jpg", "b.jpg"]
    assert found("[1].jpg") == ["[1].jpg"]
    assert sorted(found("a**")) == sorted(found("a/**")) == ["a/x.jpg", "a/y.png"]
    assert found("list.txt") == ["b.jpg", "odd ending.tmp", "a/x.jpg", "a/y.png"]
    for text, want in (
        (b"b.jpg\ngone.jpg\n", ["b.jpg", "gone.jpg"]),
        (b"a\nb.jpg\0", ["a\nb.jpg"]),
    ):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
        assert found("-") == want
    assert found("*.bmp") == []
    monkeypatch.setenv("HOME", "/home/ada")
    (tmp_path / "~own.jpg").touch()
    (tmp_path / "list.txt").write_text("~/pictures/x.jpg\n~own.jpg\n")
    assert found("list.txt") == ["/home/ada/pictures/x.jpg", "~own.jpg"]


def test_spaces_and_quotes_around_a_listed_path_are_dropped_unless_they_are_its_own(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b c.jpg", " own.jpg", "'own'"):
        (tmp_path / name).touch()
    lines = ["a.jpg  ", '"b c.jpg"', " own.jpg", "'own'", " absent.jpg"]
    (tmp_path / "list.txt").write_text("\r\n".join(lines))
    found = [str(path) for path in find_images("list.txt")]
    assert found == ["a.jpg", "b c.jpg", " own.jpg", "'own'", " absent.jpg"]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-sig", "latin-1", "print0"]
)
def test_lists_are_read_in_the_encodings_of_powershell_notepad_and_find(tmp_path, encoding):
    """The last two encodings hold names that are not UTF-8."""
    text = "one.jpg\r\nkäfer.jpg\r\n"
    contents = {
        "utf-16-be-sig": codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
        "print0": b"one.jpg\0k\xe4fer.jpg\0",
    }
    (tmp_path / "list.txt").write_bytes(contents.get(encoding) or text.encode(encoding))
    raw = encoding in ("latin-1", "print0")
    name = os.fsdecode(b"k\xe4fer.jpg") if raw else "käfer.jpg"
    assert [str(path) for path in find_images(tmp_path / "list.txt")] == ["one.jpg", name]


@pytest.mark.parametrize(
    "content",
    [
        "one.jpg\r\ntwo.jpg\r\n".encode("utf-16-le"),
        "one.jpg\r\ntwo.jpg\r\n".encode("utf-16-be"),
        "жук\r\n".encode("utf-16-le"),
        b"./one.jpg\0./two",
    ],
    ids=["utf-16 le", "utf-16 be", "other letters", "cut"],
)
def test_a_list_with_zero_bytes_that_do_not_end_paths_is_refused(tmp_path, content):
    """Else UTF-16 without a byte-order mark would name `.` and `/`, the whole disk."""
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(TextError, match=r"--predict_dir .*list\.txt holds zero bytes.*UTF-8"):
        find_images(tmp_path / "list.txt")


@pytest.mark.parametrize("line", [".", "photos", "/", "//", "photos/.."])
def test_a_list_searches_a_folder_only_if_its_line_ends_with_a_slash(tmp_path, monkeypatch, line):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text(f"{line}\nphotos/\n")
    refused = {}
    assert find_images("list.txt", refused) == [Path(line), Path("photos/a.jpg")]
    assert "folder" in refused[Path(line)]


def test_a_folder_that_cannot_be_searched_is_in_the_result_with_the_reason(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "shut").mkdir()
    scandir = os.scandir

    def refuse(path):  # root may read any folder
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    refused = {}
    assert find_images(tmp_path, refused) == [tmp_path / "a.jpg", tmp_path / "shut"]
    assert "Permission denied" in refused[tmp_path / "shut"]


def test_a_table_is_refused_with_the_way_out(tmp_path):
    (tmp_path / "list.csv").write_text("path,label\na.jpg,cat\n")
    with pytest.raises(ConfigError, match=r"list\.csv is a table: .* into a \.txt file"):
        find_images(tmp_path / "list.csv")
