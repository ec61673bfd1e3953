"""Makes the tables of docs/results.md from results.yaml.

python -m benchmarks.results            print the tables
python -m benchmarks.results --write    put them into the page
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import yaml

from benchmarks.harness.machine import ROOT
from benchmarks.harness.pages import write

PAGE = ROOT / "docs" / "results.md"
DATA = ROOT / "benchmarks" / "results" / "results.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.results", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PAGE.name}")
    options = parser.parse_args()
    text = markdown(yaml.safe_load(DATA.read_text())["tables"])
    if options.write:
        write("results", text, PAGE)
    else:
        print(text, end="")


def markdown(tables: list[dict[str, Any]]) -> str:
    """Returns all tables under their headings, without columns of Convoy's that have no figure."""
    lines, section = [], None
    for table in tables:
        if table["section"] != section:
            section = table["section"]
            lines += [f"## {section}", ""]
        if "note" in table:
            lines += [table["note"], ""]
        if "title" in table:
            lines += [f"### {table['title']}", ""]
        lines += [*_rows(table), ""]
    return "\n".join(lines[:-1]) + "\n"


def _rows(table: dict[str, Any]) -> Iterator[str]:
    measured, ours = table["measured"], table["ours"]
    for number, figures in measured.items():
        if number >= len(table["rows"]) or len(figures) != len(ours):
            raise SystemExit(
                f"{DATA.name}: {table['section']}: row {number} has {len(figures)} figures, and"
                f" {len(table['rows'])} rows take {len(ours)} each"
            )
    shown = [i for i in range(len(ours)) if any(f[i] is not None for f in measured.values())]
    head = [*table["columns"], *(f"**Convoy {ours[i]}**" for i in shown)]
    yield _line(head)
    yield _line(["---"] * len(head))
    for number, row in enumerate(table["rows"]):
        figures = measured.get(number, [None] * len(ours))
        yield _line([*row, *("" if figures[i] is None else str(figures[i]) for i in shown)])


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
