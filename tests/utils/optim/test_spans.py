"""Spans in epochs, steps or percent are converted to steps."""

import math

import pytest

from convoy.utils.optim.lr_scaling_and_decay import make_schedule
from convoy.utils.optim.spans import parse_span, to_steps

RUN = {"steps_per_epoch": 100, "total_epochs": 20}


@pytest.mark.parametrize(
    ("span", "steps"),
    [
        *((2, 200), (1.5, 150), (0, 0), ("2", 200), ("2 epochs", 200), ("1epoch", 100)),
        *(("500steps", 500), ("500 steps", 500), (" 1 Step ", 1), ("1e3steps", 1000)),
        *(("10%", 200), ("2.5 %", 50), ("0%", 0), ("100%", 2000)),
    ],
)
def test_a_span_is_converted_to_steps(span, steps):
    assert to_steps(span, **RUN) == pytest.approx(steps)


@pytest.mark.parametrize(
    "span", ["soon", "", "5 minutes", "%", "steps", "-1", -1, "-5steps", "101%", "nan", math.inf]
)
def test_an_invalid_span_is_refused(span):
    with pytest.raises(ValueError, match=r"10%|100%"):
        parse_span(span)


@pytest.mark.parametrize(("warmup", "edges"), [(5, [10, 15]), ("50 steps", ["100steps", "75%"]),
                                              ("25%", [10.0, "150 steps"])])  # fmt: skip
def test_a_schedule_is_the_same_in_epochs_steps_and_percent(warmup, edges):
    run = {"base_lr": 0.4, "steps_per_epoch": 10, "total_epochs": 20, "warmup_epochs": warmup}
    rate = make_schedule("piecewise", **run, boundaries=edges, multipliers=[1, 0.5, 0.1])
    want = [0.4 * min(1, (t + 1) / 50) * (1 if t < 100 else 0.5 if t < 150 else 0.1)
            for t in range(200)]  # fmt: skip
    assert [rate(t) for t in range(200)] == pytest.approx(want)


def test_exponential_decay_accepts_steps():
    run = {"base_lr": 1.0, "steps_per_epoch": 10, "total_epochs": 20, "warmup_epochs": 0}
    rate = make_schedule("exponential", **run, decay_rate=0.5, decay_epochs="24 steps")
    assert [rate(t) for t in range(200)] == [0.5 ** (t // 24) for t in range(200)]
