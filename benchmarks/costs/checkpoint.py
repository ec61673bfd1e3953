"""Measures the cost of saving checkpoints in the background: the share of time that training waits.

    python -m benchmarks.costs.checkpoint [--rounds 5] [--steps 50] [--batch 8] [--folder DIR]

Trains EfficientNet-B0 on synthetic images of 224 px with the recipes' RMSProp and moving average
(so a checkpoint has four numbers per weight), in blocks of `--steps` steps. Blocks with a save at
their beginning alternate with blocks without one, so that other load affects both equally. The save
is the trainer's, in the middle of an epoch.

"Blocked" is the time until training continues, as a share of the block. "Slower" is how much longer
the whole block takes than one without a save: writing and checksums use the CPU on which the
network trains. Prints medians over the rounds (minimum and maximum in brackets) as a Markdown
table, then all measurements as JSON.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from convoy.runtime.run_folder import checkpoint
from convoy.runtime.settings.config import Config
from convoy.runtime.train.sums import Sums
from convoy.runtime.train.trainer import Trainer
from convoy.utils import strict_json
from convoy.utils.logging import make_json_logger
from convoy.utils.optional import known

GOAL = 0.02


def _trainer(folder: str, batch: int, steps: int) -> Trainer:
    config = Config(
        mode="train",
        data_backend="synthetic",
        num_classes=1000,
        train_batch_size=batch,
        steps_per_epoch=1000 * steps,
        max_epochs=1,
        warmup_epochs=0.0,
        moving_average_decay=0.9999,
        model_dir=folder,
    )
    trainer = Trainer(config, make_json_logger(None))
    trainer.state.offset = trainer.sizes.images_per_step  # in the middle of an epoch
    return trainer


def _block(trainer: Trainer, steps: int, save: bool) -> tuple[float, float]:
    """Trains a block. Returns its seconds, and the seconds for which the save blocked it."""
    batch = next(trainer.train_data.batches(0))
    start, blocked = time.perf_counter(), 0.0
    if save:
        trainer._save(Sums.none())
        blocked = time.perf_counter() - start
    for _ in range(steps):
        trainer.step([batch], 1e-4)
    return time.perf_counter() - start, blocked


def measure(folder: str, rounds: int, steps: int, batch: int) -> dict[str, list[float]]:
    """Returns seconds by round: `saving`, `without`, `blocked`, and `left` (still writing)."""
    trainer = _trainer(folder, batch, steps)
    saver = known(trainer.keeper.saver)
    trainer.step.seed_randomness()
    _block(trainer, 5, save=True)  # compiles the step, and warms up the disk
    saver.settle()
    figures: dict[str, list[float]] = {"saving": [], "blocked": [], "without": []}
    for number in range(rounds):
        for save in (True, False) if number % 2 else (False, True):
            seconds, blocked = _block(trainer, steps, save)
            figures["saving" if save else "without"].append(seconds)
            if save:
                figures["blocked"].append(blocked)
                start = time.perf_counter()
                saver.settle()  # so that writing does not slow the next block
                figures.setdefault("left", []).append(time.perf_counter() - start)
    saver.finish()
    return figures


def _spread(values: list[float], scale: float = 1.0, digits: int = 2) -> str:
    middle, least, most = statistics.median(values), min(values), max(values)
    return " ".join(
        (
            f"{scale * middle:.{digits}f}",
            f"({scale * least:.{digits}f}-{scale * most:.{digits}f})",
        )
    )


def report(figures: dict[str, list[float]], megabytes: float, steps: int, batch: int) -> str:
    """Returns the Markdown table."""
    pairs = list(zip(figures["saving"], figures["without"], strict=True))
    shares = [b / s for b, s in zip(figures["blocked"], figures["saving"], strict=True)]
    ratios = [saving / without - 1 for saving, without in pairs]
    kept = "kept" if statistics.median(shares) < GOAL else "MISSED"
    return "\n".join(
        (
            f"EfficientNet-B0, 224 px, {steps} steps of {batch} images, {megabytes:.0f} MB a save",
            "",
            "| | median (least-greatest of the rounds) |",
            "|---|---|",
            f"| block without a save | {_spread(figures['without'])} s |",
            f"| block with one | {_spread(figures['saving'])} s |",
            f"| blocked by it | {_spread(figures['blocked'], 1e3, 0)} ms |",
            f"| share of the block blocked (goal: below {GOAL:.0%}, {kept}) |"
            f" {_spread(shares, 100)} % |",
            f"| whole block slower by | {_spread(ratios, 100)} % |",
            f"| still writing when the block was over | {_spread(figures['left'])} s |",
        )
    )


def main(argv: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50, help="in a block")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--folder", help="where checkpoints go; unset: a temporary folder")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        figures = measure(folder, arguments.rounds, arguments.steps, arguments.batch)
        newest = Path(str(known(checkpoint.latest(folder))))
        megabytes = sum(file.stat().st_size for file in newest.iterdir()) / 1e6
    print(report(figures, megabytes, arguments.steps, arguments.batch))
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "load": os.getloadavg()}
    print(strict_json.dumps({"figures": figures, "megabytes": megabytes, **machine}))


if __name__ == "__main__":
    main()
