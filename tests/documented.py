"""Finds every command and flag that README.md and docs/ show."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)
# Inline code that begins like this is a command, not a file name.
_PROGRAMS = r"(?:python|convoy|make|bash|pip|horovodrun|mpirun|srun|sbatch)\s|scripts/\S+\.sh"


@dataclass(frozen=True)
class Shown:
    """A command, or flags that belong to one, as a page shows it."""

    page: str
    text: str

    @property
    def words(self) -> list[str]:
        """The words as a shell would split them, without comments."""
        return shlex.split(self.text, comments=True)


def name(page: Path) -> str:
    """Returns `README.md`, or the page's path below docs/."""
    return str(page.relative_to(ROOT / "docs")) if page != PAGES[0] else page.name


def blocks(language: str) -> list[Shown]:
    """Returns all fenced blocks of a language."""
    return [
        Shown(name(page), text)
        for page in PAGES
        for found, text in _FENCED.findall(page.read_text())
        if found == language
    ]


def commands() -> list[Shown]:
    """Returns all commands that the pages show.

    These are the lines of bash blocks and of blocks without a language (except in design.md, whose
    block is a folder tree), indented commands, and commands in running text.
    """
    found = []
    for page in PAGES:
        text = page.read_text()
        for language, block in _FENCED.findall(text):
            if language in ("", "bash") and name(page) != "design.md":
                lines = re.sub(r"\s*\\\n\s*", " ", block).splitlines()
                found += [Shown(name(page), line) for line in lines if line.strip()]
        rest = _FENCED.sub("", text)
        found += [
            Shown(name(page), line.strip())
            for line in re.findall(r"^ {4}(\S.*)$", rest, re.M)
            if re.match(rf"(?:\S*/)?{_PROGRAMS}", line)
        ]
        inline = re.findall(r"`([^`]+)`", rest)
        inline = [" ".join(code.split()) for code in inline]
        found += [Shown(name(page), code) for code in inline if re.match(_PROGRAMS, code)]
    return list(dict.fromkeys(found))


def flags() -> list[Shown]:
    """Returns the flags in running text and tables: inline code that begins with a flag."""
    found = []
    for page in PAGES:
        rest = _FENCED.sub("", page.read_text())
        inline = [" ".join(code.split()) for code in re.findall(r"`(--?[^`]+)`", rest)]
        found += [Shown(name(page), code) for code in inline if code.startswith("--")]
    return list(dict.fromkeys(found))
