"""Text files in common encodings, and names that can be printed."""

import codecs
import io
import json
import os

import pytest

from convoy.utils.text import (
    TextError,
    canonical,
    for_reader,
    printable,
    read_text,
    speed_text,
    split_lines,
    wrapped,
)

TEXT = "käfer\nlöwe\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        codecs.BOM_UTF8 + TEXT.encode(),
        TEXT.encode("utf-16"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        TEXT.encode("utf-32"),
        codecs.BOM_UTF32_BE + TEXT.encode("utf-32-be"),
    ],
    ids=["utf-8", "utf-8 with mark", "utf-16", "utf-16 be", "utf-32", "utf-32 be"],
)
def test_a_byte_order_mark_decides_the_encoding_and_is_removed(tmp_path, content):
    file = tmp_path / "names.txt"
    file.write_bytes(content)
    assert read_text(file) == TEXT


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (TEXT.encode("latin-1"), r"line 1 has the byte 0xe4\): save it as UTF-8"),
        (b"cat\nl\xf6we\n", "line 2"),
        (TEXT.encode("utf-16-le"), "save it as UTF-8"),
        (b"cat\n\0dog\n", "zero bytes"),
        (codecs.BOM_UTF16_LE + b"a\0b", "mark of UTF-16-LE"),
    ],
    ids=["latin-1", "second line", "utf-16 without mark", "zeros", "half a character"],
)
def test_an_unreadable_file_raises_an_error_with_its_name_and_a_fix(tmp_path, content, says):
    file = tmp_path / "names.txt"
    file.write_bytes(content)
    with pytest.raises(TextError, match=says) as raised:
        read_text(file, f"--label_file {file}")
    assert str(raised.value).startswith(f"--label_file {file} ")


def test_only_cr_and_lf_end_lines():
    assert split_lines("a\r\nb\rc\nd") == ["a", "b", "c", "d"]
    assert split_lines("a\n\nb\n") == ["a", "", "b"]
    assert split_lines("form\x0cfeed\x85next") == ["form\x0cfeed\x85next"]
    assert split_lines("") == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("käfer", "käfer"),
        (os.fsdecode(b"k\xe4fer"), r"k\xe4fer"),
        ("two\nlines\t", r"two\nlines\t"),
        ("sep\u2028arated", r"sep\u2028arated"),
        (json.loads('"\\ud800"'), r"\ud800"),
        ("猫 🐈", "猫 🐈"),
        ("gnp.\u202ecat", r"gnp.\u202ecat"),
        ("\u05d7\u05ea\u05d5\u05dc\u200f", "\u05d7\u05ea\u05d5\u05dc\u200f"),
    ],
)
def test_printable_names_fit_on_one_line_of_utf8(name, shown):
    assert printable(name) == shown
    assert shown.encode().decode() == shown


def test_names_that_look_alike_have_one_canonical_form():
    assert canonical("ka\u0308fer") == canonical("käfer") == canonical(" käfer ") == "käfer"


def test_wrapped_text_indents_continuation_lines():
    path = "/data/" + 80 * "x" + "-y"
    text = f"{'word ' * 20}end\n  {'list ' * 20}end\nshort  line {path}"
    lines = wrapped(text).splitlines()
    assert all(len(line) < 80 for line in lines if path not in line)
    assert [len(line) - len(line.lstrip()) for line in lines] == [0, 2, 2, 4, 0, 2]
    assert path in lines[-1]
    assert lines[-2] == "short  line"
    assert " ".join("".join(lines).split()).count("word") == 20


def test_errors_are_wrapped_on_a_terminal_and_one_line_in_a_file():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    text = "convoy: " + 30 * "word "
    assert for_reader(text, Terminal()) == wrapped(text) != text
    closed = io.StringIO()
    closed.close()
    for stream in (io.StringIO(), None, closed):
        assert for_reader(text, stream) == text


@pytest.mark.parametrize(
    ("speed", "text"), [(0.148, "0.15"), (3.41, "3.4"), (9.96, "10"), (1234.4, "1234")]
)
def test_a_slow_speed_is_shown_with_two_digits(speed, text):
    assert speed_text(speed) == f"{text} images/s"
