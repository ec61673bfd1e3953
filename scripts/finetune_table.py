"""Prints the table at the end of `scripts/demo_finetune.sh`, from the logs of its runs.

    python scripts/finetune_table.py DIR

DIR has a folder `seed…` for each seed, with the runs `scratch`, `frozen` and `tuned`. Exit code: 0
if fine-tuning has the higher mean top-1, 1 if it has not, 2 if runs are missing or had different
budgets.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean
from typing import Any

SIDES = ("scratch", "frozen", "tuned")
# Settings that, beside the number of epochs, make the budget of a run.
BUDGET = ("data_dir", "train_batch_size", "steps_per_epoch", "prof", "image_size", "arch")


def read_run(model_dir: Path) -> tuple[dict[str, Any], float]:
    """Returns a run's settings, and its last evaluation's top-1 in percent, of the raw weights.

    Raises:
        ValueError: the run's log is missing, or the run did not end with an evaluation.
    """
    settings, top1 = None, None
    try:
        lines = (model_dir / "log.json").read_text().splitlines()
    except OSError as error:
        raise ValueError(f"{error}: run scripts/demo_finetune.sh first") from error
    for line in lines:
        entry = json.loads(line.removeprefix("DLLL "))
        if entry.get("step") == "PARAMETER":
            settings = entry["data"]
        elif entry.get("step") == []:  # the summary of the whole run
            top1 = entry["data"].get("eval_accuracy_top_1")
    if settings is None or top1 is None:
        raise ValueError(f"{model_dir} holds no run that ended with an evaluation")
    return settings, 100 * top1


def compare(folder: Path) -> list[tuple[str, float, float, float]]:
    """Returns each seed's name, and top-1 from scratch, with only the head trained, fine-tuned.

    Raises:
        ValueError: a run is missing, or the two sides had different budgets.
    """
    rows = []
    for seed in sorted(folder.glob("seed*"), key=lambda path: (len(path.name), path.name)):
        runs = {side: read_run(seed / side) for side in SIDES}
        settings = {side: run[0] for side, run in runs.items()}
        epochs = {side: s["max_epochs"] for side, s in settings.items()}
        budgets = {tuple(s.get(name) for name in BUDGET) for s in settings.values()}
        if len(budgets) > 1 or epochs["scratch"] != epochs["frozen"] + epochs["tuned"]:
            raise ValueError(f"{seed}: the runs differ in {', '.join(BUDGET)} or in total epochs")
        scratch, frozen, tuned = (runs[side][1] for side in SIDES)
        rows.append((seed.name.removeprefix("seed"), scratch, frozen, tuned))
    if not rows:
        raise ValueError(f"{folder} holds no seed… folder: run scripts/demo_finetune.sh first")
    return rows


def main(arguments: list[str]) -> int:
    """Prints the table; returns the exit code."""
    if len(arguments) != 1:
        print("usage: python scripts/finetune_table.py DIR", file=sys.stderr)
        return 2
    try:
        rows = compare(Path(arguments[0]))
    except ValueError as error:
        print(f"finetune_table: {error}", file=sys.stderr)
        return 2
    means = [mean(column) for column in list(zip(*rows, strict=True))[1:]]
    print(f"{'seed':>6}{'from scratch':>16}{'head alone':>16}{'fine-tuned':>16}")
    for name, *values in [*rows, ("mean", *means)]:
        print(f"{name:>6}" + "".join(f"{value:>15.2f}%" for value in values))
    scratch, _, tuned = means
    verdict = "wins" if tuned > scratch else "does not win"
    print(
        f"\nFine-tuning {verdict}: {tuned:.2f} against {scratch:.2f} % top-1, mean of {len(rows)}."
    )
    return 0 if tuned > scratch else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
