"""Makes the tables of docs/scaling.md from the model in model.py.

python -m benchmarks.scaling.tables            print them
python -m benchmarks.scaling.tables --write    put them into docs/scaling.md, and the plot beside it
"""

from __future__ import annotations

import argparse
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import yaml

from benchmarks.harness.machine import ROOT
from benchmarks.scaling.model import (
    FITTED_UP_TO,
    GPUS_PER_HOST,
    Fit,
    Setup,
    data,
    fit,
    hours_predicted,
    hours_published,
    overhead,
    setups,
    slowest,
    two_processes,
)
from convoy.model.catalog import get_arch

PAGE = ROOT / "docs" / "scaling.md"
LARGE = (64, 256, 1024)
MISSED = 0.10


def table(head: list[str], rows: list[list[str]]) -> str:
    """Returns a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float) -> str:
    return f"{value:,.0f}"


def percent(value: float) -> str:
    return f"{100 * value:+.1f} %".replace("-", "−")


def judged(error: float) -> str:
    """Formats an error, in bold if it is larger than `MISSED`."""
    return f"**{percent(error)}**" if abs(error) > MISSED else percent(error)


def fitted_values(fitted: Fit) -> str:
    rows = [
        ["σ, how much a GPU's step varies", f"{100 * fitted.sigma:.1f} % of it"],
        ["p, how input hides behind compute", f"{fitted.exponent:g}"],
    ]
    for (host, kind), ceiling in fitted.ceilings.items():
        cores = next(m["cores"] for m in data()["machines"].values() if m["host"] == host)
        each = 1000 * cores / ceiling
        rows.append(
            [
                f"ceiling of {kind} on a {host}",
                f"{ceiling:,.0f} images/s, or {each:.1f} ms on each of {cores} cores",
            ]
        )
    rows.append(["hours beside epochs over throughput", f"{overhead():.3f} ×"])
    return table(["fitted", "value"], rows)


def fitted_rows(fitted: Fit) -> str:
    rows = []
    for setup in setups():
        known, model = setup.published[FITTED_UP_TO], fitted.throughput(setup, FITTED_UP_TO)
        line = [setup.name, str(setup.batch), f"{setup.message / 1e6:.1f} MB"]
        rows.append([*line, number(known), number(model), percent(model / known - 1)])
    head = ["row of 8 GPUs", "images per GPU", "gradients", "published images/s", "model", "error"]
    return table(head, rows)


def held_out(fitted: Fit) -> list[tuple[Setup, int, float, float, float]]:
    """Returns the rows that the fit did not use.

    Each has setup, GPUs, published images/s, predicted images/s, and those of a straight line
    through the 8-GPU row.
    """
    return [
        (setup, n, known, fitted.predicted(setup, n), setup.published[8] * n / 8)
        for setup in setups()
        for n, known in setup.published.items()
        if n > FITTED_UP_TO
    ]


def held_out_rows(fitted: Fit) -> str:
    rows = []
    for setup, n, known, model, line in held_out(fitted):
        errors = judged(model / known - 1), percent(line / known - 1)
        rows.append([setup.name, str(n), number(known), number(model), *errors])
    head = ["row", "GPUs", "published images/s", "predicted", "error", "straight line's error"]
    return table(head, rows)


def hours_rows(fitted: Fit) -> str:
    rows = []
    for setup, n, hours, epochs in hours_published():
        if n <= FITTED_UP_TO:
            continue
        predicted = hours_predicted(fitted, setup, n, epochs)
        own = "–"
        if n in setup.published:
            seconds = epochs * data()["imagenet"]["train_images"] / setup.published[n]
            own = percent(seconds / 3600 / hours - 1)
        line = [setup.name, str(n), f"{hours:g}", f"{predicted:.1f}"]
        rows.append([*line, judged(predicted / hours - 1), own])
    head = ["row", "GPUs", "published hours", "predicted", "error", "its own throughput's error"]
    return table(head, rows)


def sensitivity(fitted: Fit) -> str:
    """Returns the table of errors under other assumptions about the network."""
    cases = {
        "as assumed": fitted,
        "network between hosts 10 × slower": replace(fitted, slower=10),
        "latency of a hop 10 × longer": replace(fitted, latency=10),
        "σ doubled": replace(fitted, sigma=2 * fitted.sigma),
    }
    rows = []
    for name, case in cases.items():
        errors = {
            (setup.name, n): case.predicted(setup, n) / known - 1
            for setup, n, known, *_ in held_out(case)
        }
        within = sum(abs(error) <= MISSED for error in errors.values())
        (worst, n), error = max(errors.items(), key=lambda item: abs(item[1]))
        rows.append([name, f"{within} of {len(errors)}", f"{percent(error)} ({worst}, {n})"])
    return table(["", "rows within 10 %", "worst row"], rows)


def here() -> str:
    """Returns the table that adds the parts measured on two processes with one core each."""
    measured = data()["measured"]["two_processes"]
    gradients, update = measured["joined"]["gradients"], measured["joined"]["update"]
    waits = gradients * measured["variation"] * slowest(2)
    exchange = measured["slower_exchange"] + waits
    step = gradients + update + exchange
    alone = sum(measured["alone"].values())
    rows = [
        ["waiting for the slower one: gradients × variation × z(2)", f"{1e3 * waits:.0f} ms", ""],
        [
            "exchange with that wait, share of the step",
            f"{100 * exchange / step:.1f} %",
            f"{100 * measured['exchange_share']:.1f} %",
        ],
        [
            "images/s beside processes by themselves",
            f"{100 * alone / step:.1f} %",
            f"{100 * measured['efficiency']:.1f} %",
        ],
        [
            "… if gradients and update took as long as alone",
            f"{100 * alone / (alone + exchange):.1f} %",
            "",
        ],
    ]
    return table(["", "model", "measured"], rows)


def large_setups() -> list[Setup]:
    return [s for s in setups() if (s.machine, s.precision) == ("DGXA100", "AMP")]


def largest_batch(setup: Setup) -> int:
    """Returns the largest published global batch of the architecture's family."""
    family = "ResNet" if setup.arch.startswith("resnet") else "EfficientNet"
    return max(b["images"] for b in data()["batch_limits"] if b["what"].startswith(family))


def large_rows(fitted: Fit) -> str:
    rows = []
    for setup in large_setups():
        for n in LARGE:
            limited = largest_batch(setup) // n
            batches = sorted({setup.batch, min(setup.batch, limited)}, reverse=True)
            rows += [_large_row(fitted, setup, n, batch) for batch in batches]
    head = ["row", "GPUs", "images per GPU", "global batch", "step, ms", "compute", "input"]
    head += ["stragglers", "exchange", "one flat ring", "images/s", "of one GPU × n"]
    return table(head, rows)


def _large_row(fitted: Fit, setup: Setup, n: int, batch: int) -> list[str]:
    parts = fitted.parts(setup, n, batch)
    total = sum(parts.values())
    rate = fitted.predicted(setup, n, batch)
    flat = fitted.exchange(setup, n, flat=True)
    line = [
        setup.name,
        number(n),
        number(batch),
        number(batch * n),
        f"{1e3 * batch * n / rate:.0f}",
    ]
    line += [f"{100 * value / total:.1f} %" for value in parts.values()]
    return [
        *line,
        f"{100 * flat / (total - parts['exchange'] + flat):.1f} %",
        number(rate),
        f"{100 * rate / n / setup.published[1]:.0f} %",
    ]


def limits(fitted: Fit, n: int = 1024) -> str:
    """Returns the table of what n GPUs need (batch, storage, CPU cores), beside what exists."""
    images, measured = data()["imagenet"], data()["measured"]
    per_megabyte = measured["checkpoint"]["copy_ms"] / measured["checkpoint"]["megabytes"]
    head, columns = ["at 1,024 GPUs (A100, AMP)"], []
    for setup in large_setups():
        resnet = setup.arch.startswith("resnet")
        head.append(setup.name.split()[0])
        rate, batch = fitted.predicted(setup, n), setup.batch * n
        top = largest_batch(setup)
        epoch = images["train_images"] / rate
        megabytes = get_arch(setup.arch).params_1000 * (12 if resnet else 16) / 1e6
        peak = 2.048 / 2048 * batch if resnet else 0.005 / 128 * batch
        host = rate / n * GPUS_PER_HOST
        columns.append(
            {
                "global batch with the document's batch per GPU": number(batch),
                "GPUs at which that is the largest published batch": number(top // setup.batch),
                "updates in an epoch": f"{images['train_images'] / batch:.1f}",
                "peak learning rate by the linear rule": f"{peak:.0f}",
                "images per GPU at the largest published batch": number(top // n),
                "images per GPU at a global batch of 8,192": number(8192 // n),
                "GB/s from storage, all hosts": f"{rate * images['kilobytes_per_image'] / 1e6:.0f}",
                "GB/s from storage, each host": f"{host * images['kilobytes_per_image'] / 1e6:.1f}",
                "cores a host for Convoy's input (of 128)": number(
                    math.ceil(host * setup.input_cost * measured["input_ms"]["convoy"] / 1e3)
                ),
                "seconds an epoch": f"{epoch:.1f}",
                "checkpoint, MB": number(megabytes),
                "copying it after each epoch, share of the time": (
                    f"{100 * megabytes * per_megabyte / 1e3 / epoch:.1f} %"
                ),
                "exchange, ms: hierarchical": f"{1e3 * fitted.exchange(setup, n):.1f}",
                "exchange, ms: one flat ring": f"{1e3 * fitted.exchange(setup, n, flat=True):.1f}",
            }
        )
    return table(head, [[name, *(c[name] for c in columns)] for name in columns[0]])


def tables(fitted: Fit) -> dict[str, str]:
    """Returns all tables by their names in the page's marks."""
    return {
        "fitted": fitted_values(fitted),
        "rows of 8": fitted_rows(fitted),
        "held out": held_out_rows(fitted),
        "hours": hours_rows(fitted),
        "sensitivity": sensitivity(fitted),
        "here": here(),
        "large": large_rows(fitted),
        "limits": limits(fitted),
    }


def with_tables(page: str, made: dict[str, str]) -> str:
    """Returns the page with each table between its marks.

    Raises:
        SystemExit: a table has no marks, or marks have no table.
    """
    marks = re.findall(r"<!-- table: (.+?) -->", page)
    if sorted(marks) != sorted(made):
        raise SystemExit(f"{PAGE.name}: marks {sorted(marks)}, tables {sorted(made)}")
    for name, text in made.items():
        start, end = f"<!-- table: {name} -->", "<!-- end -->"
        before, _, rest = page.partition(start)
        page = f"{before}{start}\n\n{text}\n\n{end}{rest.partition(end)[2]}"
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="update docs/scaling.md and its plot")
    parser.add_argument("--measured", type=Path, help="a file with the output of weak_scaling.py")
    parser.add_argument("--batch", type=int, default=8, help="the --batch of weak_scaling.py")
    options = parser.parse_args()
    if options.measured:
        figures = json.loads(options.measured.read_text().splitlines()[-1])
        print(yaml.safe_dump({"two_processes": two_processes(figures, options.batch)}))
        return
    from benchmarks.scaling.plot import plot

    fitted = fit(setups())
    made = tables(fitted)
    for name, text in made.items():
        print(f"{name}\n\n{text}\n")
    if options.write:
        PAGE.write_text(with_tables(PAGE.read_text(), made))
        PAGE.with_suffix(".svg").write_text(plot(fitted))


if __name__ == "__main__":
    main()
