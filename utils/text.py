"""Text that people write, in the encodings in which they have it, and names that can be shown.

Every text file of a user's goes through `read_text` or `decode_text`, every name that comes from a
file system or a data set through `printable` or, where names are compared, `canonical`.
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
from typing import TextIO

from convoy.utils.errors import UserError
from convoy.utils.files import Remote, path_of

# UTF-32's little-endian mark begins with UTF-16's, so it comes first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_UNSHOWN = ("Cc", "Cs", "Zl", "Zp")  # control, surrogate, line separator, paragraph separator
# These turn the direction of all that follows on a line, in outputs the text after the name.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_LINE_ENDS = re.compile(r"\r\n|\r|\n")
_WIDTH = 79  # columns: a terminal has 80, and some break the line after the last
_LONGEST = 60  # characters of a name in a message


class TextError(UserError, ValueError):
    """A text file cannot be read as text. The message names the file and says what to do."""


def read_text(path: str | os.PathLike[str] | Remote, name: str | None = None) -> str:
    """A text file that a person wrote: UTF-8, or what its byte order mark says, which is dropped.

    Args:
        path: the file, or a URL.
        name: what to call it in errors, such as `--label_file names.txt`; its path if unset.

    Raises:
        TextError: it is neither UTF-8 nor marked.
        OSError: it cannot be opened.
    """
    return decode_text(path_of(path).read_bytes(), name or str(path))


def is_marked(content: bytes) -> bool:
    """Whether a text begins with a byte order mark."""
    return content.startswith(tuple(mark for mark, _ in _MARKS))


def decode_text(content: bytes, name: str) -> str:
    """The same, of bytes that were read already; `name` is for errors."""
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
    """The lines of a text, ended as on any system; an empty one after the last end is left out.

    `str.splitlines` would also split at form feeds and other characters that names may hold.
    """
    lines = _LINE_ENDS.split(text)
    return lines[:-1] if lines[-1] == "" else lines


def printable(name: str) -> str:
    """A name that every output can show in one line.

    Bytes that are not UTF-8 (`os.fsdecode` makes lone surrogates of them), control characters, line
    separators and what turns the text's direction are written as Python escapes: `\\xe4`, `\\n`.
    """
    return "".join(_escaped(c) if _is_unshown(c) else c for c in name)


def _is_unshown(character: str) -> bool:
    return unicodedata.category(character) in _UNSHOWN or character in _TURNING


def canonical(name: str) -> str:
    """`printable`, with accents in Unicode's composed form (NFC), as most systems but macOS write
    them, and without spaces around it. Names that look the same to the eye are then equal.
    """
    return unicodedata.normalize("NFC", printable(name)).strip()


def some(names: Sequence[str], count: int = 5) -> str:
    """The first few names, for messages."""
    shown = [n if len(n) <= _LONGEST else n[: _LONGEST - 1] + "…" for n in names[:count]]
    shown = [printable(name) for name in shown]
    return ", ".join(shown) + (f", … ({len(names)} in all)" if len(names) > count else "")


def counted(number: float, what: str) -> str:
    """Such as "1 epoch", "2,000 epochs", "0.2 epochs" and "3 classes"."""
    text = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    plural = "es" if what.endswith("s") else "s"
    return f"{text} {what}{'' if number == 1 else plural}"


def wrapped(text: str) -> str:
    """Text in lines that every terminal has room for; what does not fit into one goes on in the
    next, set in further. Words stay whole, paths above all.
    """
    return "\n".join(map(_wrapped_line, text.split("\n")))


def _wrapped_line(line: str) -> str:
    further = " " * (len(line) - len(line.lstrip(" ")) + 2)
    keep = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.fill(line, _WIDTH, subsequent_indent=further, **keep)


def for_reader(text: str, stream: TextIO | None) -> str:
    """`wrapped` where somebody sits before a terminal; in a file, where it is searched for, each
    line stays one.
    """
    with suppress(OSError, ValueError, AttributeError):  # the stream is closed, or none
        if stream.isatty():
            return wrapped(text)
    return text


def warning(text: str) -> str:
    """A warning among a run's own lines."""
    return wrapped(f"WARNING: {text}")


def printable_output() -> None:
    """Has this program's standard output escape what its encoding lacks, as standard error does,
    instead of ending the program. For programs of our own, at their start.
    """
    if hasattr(sys.stdout, "reconfigure"):  # not so where tests or notebooks have replaced it
        sys.stdout.reconfigure(errors="backslashreplace")


def _escaped(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that could not be decoded (PEP 383)
        return f"\\x{number - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


# A file name that is not UTF-8 is escaped, in JSON's own way, rather than ending the run.
UTF8 = {"encoding": "utf-8", "errors": "backslashreplace"}
