"""Makes the data sets, trains on them, and writes the table of docs/first_run.md.

    python -m benchmarks.first_run sets --stamps DIR
    python -m benchmarks.first_run run [--sets NAME …] [--contestants …] [--seeds N …] --timm PYTHON
    python -m benchmarks.first_run search [--sets NAME …] [--trials 20]
    python -m benchmarks.first_run again [--sets NAME …] [--seeds N …]
    python -m benchmarks.first_run table --write

`again` repeats the best trial of each search with the other seeds. Each training adds a line to the
file of `--results` and is not repeated, so the same command continues an interrupted one.
`--stamps` is the folder stamps/ of Debian's package tuxpaint-stamps-default.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.first_run import search, sets, table
from benchmarks.first_run.contestants import Trial, measured
from benchmarks.harness.machine import ROOT, about_machine
from convoy.utils import strict_json

STAMPS = Path("/usr/share/tuxpaint/stamps")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.first_run",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("what", choices=["sets", "run", "search", "again", "table"])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "first_run")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results.jsonl")
    parser.add_argument("--stamps", type=Path, default=STAMPS)
    parser.add_argument("--sets", nargs="+", default=list(sets.makers(STAMPS)))
    parser.add_argument("--contestants", nargs="+", default=["plain", "keras", "timm"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument(
        "--timm", default=sys.executable, help="interpreter that has timm and PyTorch"
    )
    parser.add_argument("--write", action="store_true", help="put the table into docs/first_run.md")
    options = parser.parse_args()
    found = read(options.results)
    if options.what == "sets":
        for name in options.sets:
            folder = options.out / "data" / name
            print(name, sets.write(folder, sets.makers(options.stamps)[name]()), flush=True)
    elif options.what == "table":
        text = table.markdown(found, options.sets, about_machine())
        print(text)
        if options.write:
            table.write(text)
    else:
        trials = {
            "run": lambda: [
                Trial(data, contestant, seed)
                for seed in options.seeds
                for data in options.sets
                for contestant in options.contestants
            ],
            "search": lambda: search.trials(options.sets, options.trials),
            "again": lambda: search.best_again(options.sets, options.seeds, found),
        }[options.what]()
        train(trials, found, options)


def read(results: Path) -> list[dict]:
    """Returns the lines of the results file; [] if there is no file."""
    return (
        [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    )


def train(trials: Iterable[Trial], found: list[dict], options: argparse.Namespace) -> None:
    """Runs the trials that have no result yet, and appends their results to the file."""
    fields = ("data", "contestant", "seed", "flags")
    known = {Trial(**{field: each[field] for field in fields}).key for each in found}
    for trial in trials:
        if trial.key in known:
            continue
        run = options.out / "runs" / f"{trial.data}-{trial.contestant}-{trial.seed}"
        shutil.rmtree(run, ignore_errors=True)
        each = measured(trial, options.out / "data" / trial.data, run, options.timm)
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
        with options.results.open("a") as file:
            file.write(strict_json.dumps(each) + "\n")
        said = f"{trial.data} {trial.contestant} seed {trial.seed} {trial.flags}"
        print(f"{said}: {each['top1']} %, {each['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
