"""Makes learning-rate schedules: plain Python functions from a step number to a rate.

The same schedules serve every optimizer and model. A step is one optimizer update, counted from 0.
Every schedule starts with a linear per-step warm-up, `base_lr * (step + 1) / warmup_steps`. The
reference system (NVIDIA's TF2 EfficientNet) uses `step / warmup_steps`, which wastes the first step
on rate 0; here the last warm-up step reaches `base_lr` exactly, as does the first one after.

With `t` the steps since the end of the warm-up and `T` the steps from there to the end, the rates
after it are:

- `exponential`: `base_lr * decay_rate ** floor(t / decay_steps)`, a staircase.
- `cosine`: from `base_lr` to `end_lr` along half a cosine (Loshchilov & Hutter 2017,
  arXiv:1608.03983). Past the end it stays at `end_lr`.
- `linear`: from `base_lr` to `end_lr` along a line. Past the end it stays at `end_lr`.
- `step`: times 1/10 at each of `boundaries`, which default to 30/90, 60/90 and 80/90 of the run.
- `piecewise` (also `piecewise_constant_with_warmup`): `base_lr * multipliers[i]`, where i is the
  number of `boundaries` reached.
- `constant`: `base_lr`.
- `linearcosine`: `base_lr * ((1 - t/T) * (1 + cos(pi * t/T)) / 2 + 0.001)` (Bello et al. 2017,
  arXiv:1709.07417). The reference adds decaying random noise; we leave it out, so that a rate
  depends only on its step and a resumed run repeats it.

Only `step` and `piecewise` do not start their clock after the warm-up: their boundaries are epochs
of the whole run, as people usually state them.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Literal, TypeAlias, get_args

from convoy.utils import unknown_name
from convoy.utils.optim.spans import Span, parse_span, to_steps

ScheduleName: TypeAlias = Literal[
    "exponential", "cosine", "linear", "linearcosine", "step", "piecewise", "constant"
]
SCHEDULES: tuple[str, ...] = get_args(ScheduleName)
"""Canonical names, for flags and errors."""

_ALIASES = {"piecewise_constant_with_warmup": "piecewise", "linear_cosine": "linearcosine"}

# Goyal et al. 2017 (arXiv:1706.02677): a factor of 1/10 at epochs 30, 60 and 80 of 90.
_STEP_BOUNDARIES = (30, 60, 80)
_STEP_RUN_EPOCHS = 90
_STEP_FACTOR = 0.1

# tf.compat.v1.train.linear_cosine_decay with alpha 0, half a period, and the beta of the reference.
_LINEARCOSINE_PERIODS = 0.5
_LINEARCOSINE_BETA = 0.001


def scaled_lr(lr_init: float, global_batch: int, base: int = 128) -> float:
    """Scales a rate linearly with the batch: `lr_init * global_batch / base`.

    Args:
        lr_init: the rate for a batch of `base` examples (`--lr_init`).
        global_batch: examples per optimizer update over all ranks, gradient accumulation included.
        base: the batch to which `lr_init` refers. 128 in NVIDIA's EfficientNet, 256 in Goyal et al.
            2017 (arXiv:1706.02677), the source of the linear rule.

    Raises:
        ValueError: a batch is not positive.
    """
    if global_batch <= 0 or base <= 0:
        raise ValueError(f"Batch sizes must be positive: global_batch={global_batch}, base={base}.")
    return lr_init * global_batch / base


def make_schedule(
    name: str,
    *,
    base_lr: float,
    steps_per_epoch: int,
    total_epochs: float,
    warmup_epochs: Span,
    decay_rate: float = 0.97,
    decay_epochs: Span = 2.4,
    end_lr: float = 0.0,
    boundaries: Sequence[Span] | None = None,
    multipliers: Sequence[float] | None = None,
) -> Callable[[int], float]:
    """Returns the function from a 0-based step to its learning rate, by the formulas above.

    Args:
        name: one of `SCHEDULES`, or an alias above.
        base_lr: the rate after the warm-up, already scaled by the batch (`scaled_lr`).
        steps_per_epoch: optimizer updates per epoch.
        total_epochs: length of the run, warm-up included. May be fractional.
        warmup_epochs: length of the warm-up; 0 for none. Like `decay_epochs` and `boundaries`, it
            is in epochs, also fractional, or a text such as "500 steps" or "10%"
            (`utils.optim.spans`).
        decay_rate: factor per stair, for `exponential`.
        decay_epochs: length of a stair, for `exponential`.
        end_lr: the last rate, for `cosine` and `linear`.
        boundaries: ascending points in the run, for `step` and `piecewise`. One within the warm-up
            takes effect when the warm-up ends.
        multipliers: for `piecewise`: one more number than boundaries; the first is for the time
            before the first boundary.

    Raises:
        ValueError: the name is unknown (the message has the nearest known one), the warm-up does
            not end before the run, boundaries do not ascend, the number of multipliers is wrong, an
            option is not used by this schedule, or a number is out of range.
    """
    kind, run_steps = _kind(name), total_epochs * steps_per_epoch
    _check_run(base_lr, steps_per_epoch, total_epochs)
    in_steps = partial(to_steps, steps_per_epoch=steps_per_epoch, total_epochs=total_epochs)
    _check_warmup(warmup_epochs, in_steps, run_steps)
    _check_options(name, kind, end_lr, boundaries, multipliers)
    warmup_steps = round(in_steps(warmup_epochs))
    if kind == "exponential":
        remaining = _exponential(decay_rate, decay_epochs, in_steps, warmup_steps)
    elif kind in ("step", "piecewise"):
        if boundaries is None and kind == "step":
            boundaries = [total_epochs * edge / _STEP_RUN_EPOCHS for edge in _STEP_BOUNDARIES]
        remaining = _stairs(kind, boundaries, multipliers, in_steps)
    else:
        remaining = _curve(_SHAPES[kind], warmup_steps, max(1, round(run_steps) - warmup_steps))
    return _with_warmup(warmup_steps, base_lr, end_lr, remaining)


def _with_warmup(
    warmup_steps: int, base_lr: float, end_lr: float, remaining: Callable[[int], float]
) -> Callable[[int], float]:
    """Returns the schedule that rises to `base_lr`, and then falls towards `end_lr`.

    Args:
        warmup_steps: length of the warm-up.
        base_lr: the rate after it.
        end_lr: the rate of which nothing remains.
        remaining: maps a step after the warm-up to the remaining fraction of the way to `end_lr`.
    """

    def schedule(step: int) -> float:
        """Returns the learning rate of update number `step`, from 0. Raises ValueError below 0."""
        if step < 0:
            raise ValueError(f"Steps count from 0; got {step}.")
        if step < warmup_steps:
            return float(base_lr * (step + 1) / warmup_steps)
        return float(end_lr + (base_lr - end_lr) * remaining(step))

    return schedule


def _exponential(
    rate: float, epochs: Span, in_steps: Callable[[Span], float], warmup_steps: int
) -> Callable[[int], float]:
    """Multiplies by `rate` after each `epochs`, counted from the end of the warm-up."""
    if not (rate > 0 and parse_span(epochs)[0] > 0):
        raise ValueError(
            "--lr_decay exponential needs a positive --lr_decay_rate and --lr_decay_epochs,"
            f" not {rate} and {epochs}"
        )
    stair = in_steps(epochs)
    return lambda step: rate ** math.floor((step - warmup_steps) / stair)


def _curve(
    shape: Callable[[float], float], warmup_steps: int, decay_steps: int
) -> Callable[[int], float]:
    """Follows a shape over `decay_steps` after the warm-up, and stays at its end."""
    return lambda step: shape(min(1.0, (step - warmup_steps) / decay_steps))


def _linearcosine(done: float) -> float:
    cosine = 0.5 * (1.0 + math.cos(2.0 * math.pi * _LINEARCOSINE_PERIODS * done))
    return (1.0 - done) * cosine + _LINEARCOSINE_BETA


# Each maps the completed fraction of the decay, 0 to 1, to the remaining fraction of the rate.
_SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
    "linear": lambda done: 1.0 - done,
    "linearcosine": _linearcosine,
}


def _kind(name: str) -> str:
    """Returns the canonical name of a schedule."""
    key = str(name).lower()
    kind = _ALIASES.get(key, key)
    if kind not in SCHEDULES:
        raise unknown_name("learning-rate schedule (--lr_decay)", name, SCHEDULES)
    return kind


def _check_run(base_lr: float, steps_per_epoch: int, total_epochs: float) -> None:
    if not (math.isfinite(base_lr) and base_lr >= 0):
        raise ValueError(f"The learning rate must be a number of at least 0, not {base_lr}.")
    if steps_per_epoch < 1:
        raise ValueError(f"steps_per_epoch must be at least 1, not {steps_per_epoch}.")
    if not total_epochs > 0:
        raise ValueError(f"The run must be longer than 0 epochs, not {total_epochs}.")


def _check_warmup(warmup: Span, in_steps: Callable[[Span], float], total_steps: float) -> None:
    try:
        steps = in_steps(warmup)
    except ValueError as error:
        raise ValueError(f"--warmup_epochs: {error}") from error
    if steps >= total_steps:
        raise ValueError(
            f"--warmup_epochs {warmup} does not end before the run does, after {total_steps:g} "
            f"steps of which it would take {steps:g}. Lower it, or train for more epochs."
        )


def _check_options(
    name: str,
    kind: str,
    end_lr: float,
    boundaries: Sequence[Span] | None,
    multipliers: Sequence[float] | None,
) -> None:
    """Rejects options that this schedule does not use: users who give one expect an effect."""
    if end_lr and kind not in ("cosine", "linear"):
        raise ValueError(f"--lr_end has no effect with --lr_decay {name}: leave it out")
    if not (math.isfinite(end_lr) and end_lr >= 0):
        raise ValueError(f"--lr_end must be a number of at least 0, not {end_lr}")
    if boundaries is not None and kind not in ("step", "piecewise"):
        raise ValueError(f"--lr_boundaries has no effect with --lr_decay {name}: leave it out")
    if multipliers is not None and kind != "piecewise":
        raise ValueError(f"--lr_multipliers has no effect with --lr_decay {name}: leave it out")


def _stairs(
    kind: str,
    boundaries: Sequence[Span] | None,
    multipliers: Sequence[float] | None,
    in_steps: Callable[[Span], float],
) -> Callable[[int], float]:
    """Changes the rate at boundaries: each `step` to a tenth, `piecewise` to its multipliers."""
    if boundaries is None:
        raise ValueError("--lr_decay piecewise needs --lr_boundaries and --lr_multipliers")
    edges = [in_steps(boundary) for boundary in boundaries]
    if any(b <= a for a, b in pairwise(edges)) or any(not edge > 0 for edge in edges):
        raise ValueError(f"--lr_boundaries must be positive and ascend, not {list(boundaries)}")
    factors = list(multipliers or [])
    if kind == "step":
        factors = [_STEP_FACTOR**i for i in range(len(edges) + 1)]
    elif len(factors) != len(edges) + 1:
        raise ValueError(
            f"--lr_boundaries names {len(edges)} places, so --lr_multipliers needs {len(edges) + 1}"
            f" numbers (the first for the time before the first place), not {len(factors)}"
        )
    edge_steps = [round(edge) for edge in edges]
    return lambda step: factors[bisect_right(edge_steps, step)]
