"""Compares Convoy with other programs: runs the comparisons in rows/, called rows.

    python -m benchmarks [--only WORD …] [--write]

Prints a table for each row and saves all measurements as JSON in build/bench/. `--write` also
replaces the rows' tables in the pages of docs/performance/.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from benchmarks.harness.machine import ROOT, measured_on
from benchmarks.harness.pages import page_of, write
from benchmarks.harness.program import Program
from benchmarks.harness.table import markdown
from benchmarks.harness.turns import end_in_order, measure
from benchmarks.rows.every_row import ROWS
from convoy.utils import strict_json


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--only", nargs="+", metavar="WORD", help="rows with this in their name")
    parser.add_argument("--entries", nargs="+", metavar="WORD", help="contenders, likewise")
    parser.add_argument("--rounds", type=int, help="turns of each contender")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench")
    options = parser.parse_args()
    names = [row.name for row in ROWS]
    rows = [row for row in ROWS if chosen(row.name, options.only, names)]
    if not rows:
        parser.error(f"no row has such a name; there are: {', '.join(row.name for row in ROWS)}")
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
    """Returns whether the name contains one of the words.

    A word that is one of `names` matches only that name.
    """
    return not words or any(word == name or (word in name and word not in names) for word in words)


if __name__ == "__main__":
    main()
