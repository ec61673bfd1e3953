"""Runs the rows of `benchmarks.rows.every_row`.

    python -m benchmarks [--only WORD …] [--write]

Prints each as a table, stores every figure as JSON under build/bench/, and with `--write` replaces
the rows' tables in the pages of docs/performance/.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path

from benchmarks.harness.turns import ROOT, Program, end_in_order, markdown, measure, measured_on
from benchmarks.rows.every_row import ROWS
from convoy.utils import strict_json

PAGES = ROOT / "docs" / "performance"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="WORD", help="rows whose name holds one")
    parser.add_argument("--entries", nargs="+", metavar="WORD", help="contenders, likewise")
    parser.add_argument("--rounds", type=int, help="turns of each contender")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench")
    options = parser.parse_args()
    names = [row.name for row in ROWS]
    rows = [row for row in ROWS if chosen(row.name, options.only, names)]
    if not rows:
        parser.error(f"no row is called so; there are: {', '.join(row.name for row in ROWS)}")
    end_in_order()
    for row in rows:
        print(f"## {row.title} (`{row.name}`)\n", flush=True)
        if isinstance(row, Program):
            table, found = row.run()
        else:
            labels = [entry.label for entry in row.entries]
            entries = [e for e in row.entries if chosen(e.label, options.entries, labels)]
            row = replace(row, entries=entries, rounds=options.rounds or row.rounds)
            found = measure(row)
            table = markdown(row, found)
        table += "\n" + measured_on(found["machine"])
        print(table, flush=True)
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / f"{row.name}.json").write_text(strict_json.dumps(found, indent=1) + "\n")
        if options.write:
            write(row.name, table, page_of(row.name))


def chosen(name: str, words: list[str] | None, names: list[str]) -> bool:
    """Returns whether the name contains one of the words; a word that is a full name matches only
    that.
    """
    return not words or any(word == name or (word in name and word not in names) for word in words)


def page_of(name: str) -> Path:
    """Returns the page of docs/performance/ with a row's marks.

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
    """Replaces the text between the marks of a row, or of another table, in the page.

    Raises:
        SystemExit: the page has no such marks.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    text = page.read_text()
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{page.name} has no place for {name}: add {begin} and {end}")
    page.write_text(pattern.sub(lambda _: f"{begin}\n{table}{end}", text))


if __name__ == "__main__":
    main()
