"""Writes docs/decisions/index.md, the list of decision records by area and number.

    python scripts/decisions_index.py

A record is a file `NNN-title.md`: a heading, a line `*Area. Date.*`, `## Decision` and `## Why`.
"""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "decisions"
HEAD = """# Decisions

Why Convoy is as it is: one short record for each choice, with what was measured. Look here before
you change something back. `python scripts/decisions_index.py` makes this list.
"""
RECORD = re.compile(r"# (?P<title>.+)\n\n\*(?P<area>[^.]+)\. (?P<date>\d{4}-\d\d-\d\d).*\*\n\n## ")


def index() -> str:
    """Returns the page's text.

    Raises:
        SystemExit: a record does not begin in this form.
    """
    areas: dict[str, list[str]] = {}
    for file in sorted(FOLDER.glob("[0-9]*.md")):
        found = RECORD.match(file.read_text())
        if not found:
            raise SystemExit(f"{file.name}: expected '# Title', then '*Area. Date.*'")
        line = f"- [{file.name[:3]}]({file.name}) {found['title']} ({found['date']})"
        areas.setdefault(found["area"], []).append(line)
    return HEAD + "".join(f"\n## {name}\n\n" + "\n".join(areas[name]) + "\n" for name in areas)


if __name__ == "__main__":
    (FOLDER / "index.md").write_text(index())
