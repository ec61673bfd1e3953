"""Replaces tables in the pages of docs/, between marks (HTML comments)."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.harness.machine import ROOT

PAGES = ROOT / "docs" / "performance"


def page_of(name: str) -> Path:
    """Returns the page of docs/performance/ that has the row's marks.

    Raises:
        SystemExit: no page has them.
    """
    begin = f"<!-- {name} -->"
    for page in sorted(PAGES.glob("*.md")):
        if begin in page.read_text():
            return page
    raise SystemExit(
        f"no page of docs/performance/ has a place for {name}: add {begin} and its end"
    )


def write(name: str, table: str, page: Path) -> None:
    """Replaces the text between the marks of a table in a page.

    Args:
        name: the name in the marks: of a row, or of another table.

    Raises:
        SystemExit: the page has no such marks.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    text = page.read_text()
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{page.name} has no place for {name}: add {begin} and {end}")
    page.write_text(pattern.sub(lambda _: f"{begin}\n{table}{end}", text))
