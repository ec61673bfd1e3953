"""Compares the foreseen memory of training with measured peaks.

    python -m benchmarks.costs.step_memory efficientnet-b0:224:32 resnet50:224:16:bfloat16

Each case is an architecture, an image size, a batch, and a precision if not float32. It trains
two steps in a process of its own for each value of `--recompute`, as `--recompute auto` does, on
synthetic images or those of `--data_dir`. Prints a Markdown table: foreseen and measured MiB, their
ratio, and the shares of what was foreseen.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from convoy.runtime.builders.models import build_training_model
from convoy.runtime.fitted.auto_batch import Trials
from convoy.runtime.fitted.foreseen_memory import Foreseen, Foresight, bytes_of_a_number
from convoy.runtime.settings.config import Config, defaults

VALUES = ("none", "norms", "blocks")
_MIB = 2**20


class Case(NamedTuple):
    """What is trained."""

    arch: str
    size: int
    batch: int
    dtype: str

    @classmethod
    def of(cls, text: str) -> Case:
        """Reads ARCH:PX:BATCH[:PRECISION]."""
        arch, size, batch, *dtype = text.split(":")
        return cls(arch, int(size), int(batch), *(dtype or ["float32"]))

    def config(self, data_dir: str | None) -> Config:
        """Returns its settings."""
        data = {"data_dir": data_dir} if data_dir else {"data_backend": "synthetic"}
        given = {"mode": "train", "image_size": self.size, "train_batch_size": self.batch}
        return Config(**(defaults(self.arch) | given | data | {"dtype": self.dtype}))


def foreseen(case: Case, classes: int = 10) -> Iterator[tuple[str, Foreseen]]:
    """Yields each value of `--recompute` with what it will take."""
    config = case.config(None)
    model = build_training_model(config, classes)
    foresight = Foresight(config, model, bytes_of_a_number(case.dtype), gpu=False)
    for how in VALUES:
        yield how, foresight.peak(case.batch, how)


def measured(case: Case, how: str, data_dir: str | None) -> float:
    """Returns the peak of a process that trains, in bytes; not a number: it was killed."""
    with Trials(case.config(data_dir)) as trials:
        return trials.peak(case.batch, how) or float("nan")


def table(rows: Iterable[tuple[Case, str, Foreseen, float]]) -> str:
    """Returns the Markdown table."""
    lines = [
        "| | `--recompute` | foreseen | measured | ratio | fixed | weights | kept | at work |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case, how, found, peak in rows:
        name = f"{case.arch}, {case.size} px, batch {case.batch}, {case.dtype}"
        fixed, weights, kept, working = shares(found)
        lines.append(
            f"| {name} | `{how}` | {found.total / _MIB:,.0f} | {peak / _MIB:,.0f}"
            f" | {found.total / peak:.2f} | {fixed:.0%} | {weights:.0%} | {kept:.0%}"
            f" | {working:.0%} |"
        )
    return "\n".join(lines)


def shares(found: Foreseen) -> tuple[float, float, float, float]:
    """Returns the shares of the process and its images, weights, what is kept, and the rest."""
    process, weights, gradients, slots, average, kept, working, images, index, gaps = (
        part / found.total for part in found.parts().values()
    )
    state = weights + gradients + slots + average
    return process + images + index, state, kept, working + gaps


def main(argv: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="+", type=Case.of, metavar="ARCH:PX:BATCH[:PRECISION]")
    parser.add_argument("--data_dir", help="images to train on; unset: synthetic ones")
    options = parser.parse_args(argv)
    print(
        table(
            (case, how, found, measured(case, how, options.data_dir))
            for case in options.cases
            for how, found in foreseen(case)
        )
    )


if __name__ == "__main__":
    main()
