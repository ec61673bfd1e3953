"""Reads text that people write, in its various encodings, and makes names printable.

Every text file of a user goes through `read_text` or `decode_text`. Every name from a file system
or a data set goes through `printable`, or through `canonical` if names are compared.
"""

from __future__ import annotations

import codecs
import os
import re
import sys
import textwrap
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from typing import TextIO, TypedDict

from convoy.utils.errors import UserError
from convoy.utils.files import Remote, path_of

# UTF-32's little-endian mark begins with UTF-16's, so test it first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_UNSHOWN = ("Cc", "Cs", "Zl", "Zp")  # control, surrogate, line separator, paragraph separator
# These change the direction of all following text on a line, in outputs also the text after the
# name.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_LINE_ENDS = re.compile(r"\r\n|\r|\n")
_WIDTH = 79  # columns: a terminal has 80, and some wrap after the last
_LONGEST = 60  # characters of a name in a message


class TextError(UserError, ValueError):
    """A text file cannot be read as text. The message names the file and says what to do."""


def read_text(path: str | os.PathLike[str] | Remote, name: str | None = None) -> str:
    """Reads a text file that a person wrote: in UTF-8, or as its byte order mark says.

    The mark is not part of the text.

    Args:
        path: the file, or a URL.
        name: its name in errors, such as `--label_file names.txt`; its path if unset.

    Raises:
        TextError: it is not UTF-8 and has no mark.
        OSError: it cannot be opened.
    """
    return decode_text(path_of(path).read_bytes(), name or str(path))


def is_marked(content: bytes) -> bool:
    """Returns whether a text begins with a byte order mark."""
    return content.startswith(tuple(mark for mark, _ in _MARKS))


def decode_text(content: bytes, name: str) -> str:
    """Does the same for bytes already read; `name` is for errors."""
    mark, encoding = next((m for m in _MARKS if content.startswith(m[0])), (b"", "utf-8"))
    try:
        text = content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        if mark and mark != codecs.BOM_UTF8:
            what = f"begins with the mark of {encoding.upper()} and is not valid as such"
        else:
            line = content.count(b"\n", 0, len(mark) + error.start) + 1
            byte = content[len(mark) + error.start]
            what = f"is not UTF-8 text (line {line} has the byte 0x{byte:02x})"
        raise TextError(f"{name} {what}: save it as UTF-8") from error
    if "\0" in text:
        raise TextError(f"{name} holds zero bytes, so it is not UTF-8 text: save it as UTF-8")
    return text


def split_lines(text: str) -> list[str]:
    """Splits a text into lines with any system's line ends; drops an empty line after the last end.

    `str.splitlines` would also split at form feeds and other characters that names may contain.
    """
    lines = _LINE_ENDS.split(text)
    return lines[:-1] if lines[-1] == "" else lines


def printable(name: str) -> str:
    r"""Returns a name that every output can show on one line.

    Bytes that are not UTF-8 (`os.fsdecode` turns them into lone surrogates), control characters,
    line separators and characters that change the text's direction become Python escapes: `\xe4`,
    `\n`.
    """
    return "".join(_escaped(c) if _is_unshown(c) else c for c in name)


def _is_unshown(character: str) -> bool:
    return unicodedata.category(character) in _UNSHOWN or character in _TURNING


def canonical(name: str) -> str:
    """Returns `printable` of the name in a form in which names that look the same are equal.

    Accents are in Unicode's composed form (NFC), which most systems except macOS use; surrounding
    spaces are dropped.
    """
    return unicodedata.normalize("NFC", printable(name)).strip()


def some(names: Sequence[str], count: int = 5) -> str:
    """Lists the first few names, for messages."""
    shown = [n if len(n) <= _LONGEST else n[: _LONGEST - 1] + "…" for n in names[:count]]
    shown = [printable(name) for name in shown]
    return ", ".join(shown) + (f", … ({len(names)} in all)" if len(names) > count else "")


def counted(number: float, what: str) -> str:
    """Returns text such as "1 epoch", "2,000 epochs", "0.2 epochs" and "3 classes"."""
    text = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    plural = "es" if what.endswith("s") else "s"
    return f"{text} {what}{'' if number == 1 else plural}"


def speed_text(speed: float) -> str:
    """Returns text such as "0.15 images/s", "3.4 images/s" and "1234 images/s"."""
    return f"{speed:.0f} images/s" if speed >= 9.95 else f"{speed:.2g} images/s"


def wrapped(text: str) -> str:
    """Wraps text to lines that fit every terminal; continuation lines are indented further.

    Words stay whole, above all paths.
    """
    return "\n".join(map(_wrapped_line, text.split("\n")))


def _wrapped_line(line: str) -> str:
    further = " " * (len(line) - len(line.lstrip(" ")) + 2)
    return textwrap.fill(
        line, _WIDTH, subsequent_indent=further, break_long_words=False, break_on_hyphens=False
    )


def for_reader(text: str, stream: TextIO | None) -> str:
    """Returns `wrapped` text for a terminal; in a file, where people search, lines stay whole."""
    with suppress(OSError, ValueError, AttributeError):  # the stream is closed, or not a stream
        if stream is not None and stream.isatty():
            return wrapped(text)
    return text


def tell(text: str, stream: TextIO | None = None) -> None:
    """Prints to standard error, or another stream, as its reader has room for; see `for_reader`."""
    stream = sys.stderr if stream is None else stream
    print(for_reader(text, stream), file=stream, flush=True)


def warning(text: str) -> str:
    """Formats a warning among a run's own lines."""
    return wrapped(f"WARNING: {text}")


def printable_output() -> None:
    """Makes this program's standard output escape characters that its encoding lacks.

    Standard error does so already; standard output would end the program. Call it at the start of
    our own programs.
    """
    if hasattr(sys.stdout, "reconfigure"):  # tests or notebooks may have replaced it
        sys.stdout.reconfigure(errors="backslashreplace")


def _escaped(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that could not be decoded (PEP 383)
        return f"\\x{number - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


class Encoding(TypedDict):
    """How to open or encode text."""

    encoding: str
    errors: str


# Escapes a file name that is not UTF-8, as JSON does, rather than ending the run.
UTF8: Encoding = {"encoding": "utf-8", "errors": "backslashreplace"}
