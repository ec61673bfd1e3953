"""The program prints the messages that docs/troubleshooting.md quotes."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
QUOTED = [text.strip() for text in re.findall(r"^```text\n(.*?)^```$", PAGE, re.S | re.M)]
FOLDERS = ("convoy", "dataloader", "model", "runtime", "utils")


def texts(file: Path) -> list[str]:
    """Returns the string literals of a file, with … in place of inserted values."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.JoinedStr):
            parts = (v.value if isinstance(v, ast.Constant) else "…" for v in node.values)
            found.append("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(re.sub(r"%s|\{\w*\}", "…", node.value))
    return [" ".join(text.split()) for text in found]


@pytest.fixture(scope="module")
def printed():
    """All messages in the code that have more than one word."""
    files = [file for name in FOLDERS for file in (ROOT / name).rglob("*.py")]
    return {text for file in files for text in texts(file) if " " in text}


@pytest.mark.parametrize("quoted", QUOTED, ids=lambda text: text[:50])
def test_a_quoted_message_exists_in_the_code(quoted, printed):
    parts = [part.strip() for part in quoted.split("…") if part.strip(" .,:;()")]
    pattern = re.compile(r".*".join(map(re.escape, parts)))
    longest = max(parts, key=len)
    assert len(longest) > 11, "too short to search for: quote more of the message"
    assert any(longest in text and pattern.search(text) for text in printed)


def test_the_page_quotes_at_least_35_messages():
    assert len(QUOTED) >= 35
