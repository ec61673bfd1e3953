"""Runs `--mode lr_find`: a learning-rate range test.

See Smith 2017, "Cyclical Learning Rates for Training Neural Networks" (arXiv:1506.01186), section
3.3; rates grow by a factor, as in fastai.

It trains the initial network at rates from `RATES[0]` up. While rates are too small, the loss does
not change; then it falls, faster for better rates; then it rises. The trained weights are
discarded.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from convoy.dataloader.data_loader import DataLoader
from convoy.runtime.builders.inputs import micro_steps
from convoy.runtime.builders.progressive_stages import loader_of_stage, set_dropout, stage_settings
from convoy.runtime.data.class_weights import class_weights
from convoy.runtime.fitted.enough_memory import memory_warning
from convoy.runtime.run_folder.checkpoint import check_writable
from convoy.runtime.run_folder.next_commands import command, without
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flags import batch_number
from convoy.runtime.settings.lr_find_checks import LEAST_UPDATES
from convoy.runtime.settings.lr_schedule import peak_rate
from convoy.runtime.train.new_state import new_state
from convoy.runtime.train.not_finite import TrainingError
from convoy.runtime.train.objective import make_step
from convoy.runtime.train.step import Step
from convoy.utils import strict_json
from convoy.utils.distributed import ranks
from convoy.utils.errors import ConfigError
from convoy.utils.files import path_of, write_atomically
from convoy.utils.pages.plots import COLOURS, check_plots, curves, log_axis, save_plots
from convoy.utils.progress import Progress
from convoy.utils.text import tell
from convoy.utils.watchdog import watchdog

RATES = (1e-6, 10.0)
UPDATES = 100
"""Default number of updates, without `--prof`."""
SMOOTHING = 0.9
"""Decay of the losses' moving average, corrected for its start: about ten updates."""
EXPLODED = 4.0
"""Factor on the lowest smoothed loss at which the test ends."""
BEFORE_LOWEST = 3.0
"""The search for the steepest descent stops at the rate of the lowest loss divided by this: closer
to it, the loss still falls from earlier, smaller rates, and the next update may explode.
"""
_EARLY = LEAST_UPDATES // 2  # earlier losses are not judged
# Required fall of the smoothed loss: this fraction of the first losses, and this many of their
# standard deviations, which happens by chance about once in a hundred curves.
_FALLEN, _DEVIATIONS = 0.02, 1.5


@dataclass(frozen=True)
class Curve:
    """The measured losses.

    Attributes:
        rates: rate of each update.
        losses: loss over all ranks' images before the update, in nats.
        smoothed: their moving average.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]


@dataclass(frozen=True)
class Suggestion:
    """Suggested learning rates.

    Attributes:
        steepest: rate at which the smoothed loss falls fastest over the logarithm of the rate, up
            to `BEFORE_LOWEST`.
        lowest: rate at which it is lowest, which is already too large.
        tenth: a tenth of `lowest`.
    """

    steepest: float
    lowest: float
    tenth: float


def find_rate(config: Config, args: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the test, writes `lr_find.json` and `lr_find.png` and prints the result.

    All ranks must call it.

    Args:
        config: the flags.
        args: the command line, for suggesting the next one; or None.

    Returns:
        The suggested rates, and `lr_init`, the flag's value for the first of them.

    Raises:
        TrainingError: the loss did not fall at any rate.
    """
    chief = ranks.rank() == 0
    ranks.on_rank0(lambda: check_writable(config.model_dir))
    config = config.with_(moving_average_decay=0.0)
    stage = stage_settings(config, 0)
    data = loader_of_stage(config, stage)
    say: Callable[[str], None] = print if chief else lambda text: None
    state = new_state(config, data.num_classes, None, say, data.class_names)
    set_dropout(state.model, stage)
    passes = micro_steps(config)
    step = make_step(config, state, passes, data.prepare, class_weights(config, data))
    step.seed_randomness()
    if warning := memory_warning(config, state.model):
        say(warning)
    updates = config.prof or UPDATES
    say(f"learning rates from {RATES[0]:g} to {RATES[1]:g} in up to {updates} updates")
    curve = sweep(step, _batches(data, passes), updates, progress=chief)
    found = suggest(curve)
    images = batch_number(config.train_batch_size) * ranks.size() * passes
    result = {} if found is None else asdict(found)
    if found is not None:
        factor = peak_rate(config.with_(lr_init=1.0), images)
        result["lr_init"] = float(f"{found.steepest / factor:.2g}")

    def end() -> None:
        written = _write(config, curve, result, images)
        if found is None:
            raise TrainingError(
                f"the loss fell at no rate from {RATES[0]:g} to {RATES[1]:g}: look at the labels,"
                " or give the test more updates (--prof 300) or a larger --train_batch_size; the"
                f" measurements are in {written[0]}"
            )
        lines = told(curve, found, result["lr_init"], updates, args)
        print(*lines, f"wrote {' and '.join(written)}", sep="\n", flush=True)

    ranks.on_rank0(end)
    return result


def sweep(step: Step, batches: Iterator[list[Any]], updates: int, progress: bool = False) -> Curve:
    """Trains at one rate after another until the loss explodes; the same on every rank.

    Args:
        step: the training step.
        batches: batches of each update, as for `Step`.
        updates: maximum number of updates.
        progress: whether this rank shows progress.
    """
    curve, average, best = Curve([], [], []), 0.0, np.inf
    shown = Progress(total_epochs=1, steps_per_epoch=updates, log_steps=max(1, updates // 10))
    rates = np.geomspace(*RATES, updates).tolist()
    try:
        for number, rate in enumerate(rates, 1):
            watchdog.await_data(f"waiting for the data of update {number}")
            result = step(next(batches), rate)
            if not result.finite_loss:
                break
            total, *_, weight = result.shared  # over all ranks, and so the same on each
            loss = float(total / weight)
            average = SMOOTHING * average + (1 - SMOOTHING) * loss
            smoothed = average / (1 - SMOOTHING**number)
            for values, value in zip(asdict(curve), (rate, loss, smoothed), strict=True):
                getattr(curve, values).append(value)
            best = min(best, smoothed)
            if progress:
                shown.update(number, loss=smoothed, lr=rate)
            if number > _EARLY and smoothed > EXPLODED * best:
                break
    finally:
        shown.close()
        watchdog.rest("ending the test")
    return curve


def suggest(curve: Curve) -> Suggestion | None:
    """Evaluates a curve; returns None if the loss did not fall."""
    smoothed = np.array(curve.smoothed)
    if len(smoothed) <= _EARLY:
        return None
    early, lowest = np.array(curve.losses[:_EARLY]), int(smoothed.argmin())
    fall = max(_FALLEN * early.mean(), _DEVIATIONS * early.std())
    if lowest < _EARLY or smoothed[lowest] > early.mean() - fall:
        return None
    rate = curve.rates[lowest]
    last = max(_EARLY, int(np.searchsorted(curve.rates, rate / BEFORE_LOWEST, side="right")) - 1)
    slopes = np.gradient(smoothed, np.log(curve.rates))[_EARLY : last + 1]
    steepest = curve.rates[_EARLY + int(slopes.argmin())]
    return Suggestion(steepest=steepest, lowest=rate, tenth=rate / 10)


def told(
    curve: Curve, found: Suggestion, lr_init: float, updates: int, args: Sequence[str] | None
) -> list[str]:
    """Returns lines for the terminal."""
    lines, last = [], curve.rates[-1]
    if len(curve.rates) < updates:
        lines.append(f"the loss exploded at a rate of {last:.2g}, after {len(curve.rates)} updates")
    lines += [
        f"it falls fastest at {found.steepest:.2g}: --lr_init {lr_init:g}",
        f"it is lowest, {min(curve.smoothed):.3f}, at {found.lowest:.2g}; a tenth of that,"
        f" {found.tenth:.2g}, is the other usual choice",
    ]
    if args is None:
        return lines
    kept = without(args, "mode", "lr_init", "prof")
    mode = [] if len(without(args, "mode")) < len(args) else ["--mode", "train_and_eval"]
    return [*lines, "to train with it:", *command(*kept, *mode, "--lr_init", f"{lr_init:g}")]


def _batches(data: DataLoader, passes: int) -> Iterator[list[Any]]:
    """Yields the batches of each update, across the ends of epochs."""
    endless = itertools.chain.from_iterable(data.batches(epoch) for epoch in itertools.count())
    while True:
        yield list(itertools.islice(endless, passes))


def _write(config: Config, curve: Curve, result: dict[str, Any], images: int) -> list[str]:
    """Writes the files and returns their paths."""
    path = path_of(config.model_dir) / "lr_find.json"
    about = {"arch": config.arch, "optimizer": config.optimizer, "images_per_update": images}
    text = strict_json.dumps({**about, "suggestion": result or None, **asdict(curve)}, indent=1)
    write_atomically(path, text)
    try:
        check_plots("lr_find.png")
    except ConfigError as error:
        tell(f"convoy: no plot: {error}")
        return [str(path)]
    with curves(
        "Loss by learning rate",
        {"loss": (curve.rates, curve.losses), "smoothed": (curve.rates, curve.smoothed)},
        xlabel="learning rate",
        ylabel="training loss, nats",
    ) as plot:
        plot.axes.set_xscale("log")
        log_axis(plot.axes.xaxis, *RATES)
        if curve.losses:  # the explosion would flatten the rest
            top = 1.5 * max(curve.smoothed[:_EARLY])
            plot.axes.set_ylim(0.9 * min(curve.losses), top)
        for name, colour in (("steepest", "c3"), ("tenth", "c4")):
            if name in result:
                label = f"{name}: {result[name]:.2g}"
                plot.axes.axvline(result[name], color=COLOURS[colour], label=label, linestyle="--")
        plot.axes.legend()
    save_plots(path.parent, [("lr_find", plot)])
    return [str(path), str(path.parent / "lr_find.png")]
