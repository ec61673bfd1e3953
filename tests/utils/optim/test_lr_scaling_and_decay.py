"""Learning-rate schedules against their formulas, written again here."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from convoy.utils.optim.lr_scaling_and_decay import SCHEDULES, make_schedule, scaled_lr

ROOT = Path(__file__).parents[3]
RUN = {"base_lr": 0.4, "steps_per_epoch": 10, "total_epochs": 20, "warmup_epochs": 5}
PIECES = {"boundaries": [8, 16], "multipliers": [1.0, 0.5, 0.01]}


def extra(name):
    return PIECES if name == "piecewise" else {}


@pytest.mark.parametrize("name", SCHEDULES)
def test_warm_up_is_linear_per_step_and_ends_at_the_base_learning_rate(name):
    rate = make_schedule(name, **RUN, **extra(name))
    for step in range(50):
        assert rate(step) == pytest.approx(0.4 * (step + 1) / 50)
    assert rate(49) == 0.4
    after = 0.4 * (1.001 if name == "linearcosine" else 1.0)
    assert rate(50) == pytest.approx(after)
    assert isinstance(rate(50), float)


@pytest.mark.parametrize("name", SCHEDULES)
def test_without_warm_up_the_schedule_starts_at_the_base_learning_rate(name):
    rate = make_schedule(name, **{**RUN, "warmup_epochs": 0}, **extra(name))
    assert rate(0) == pytest.approx(0.4, rel=2e-3)


def test_exponential_is_a_staircase_after_the_warm_up():
    rate = make_schedule("exponential", **RUN)
    for step in (50, 73, 74, 97, 98, 199):
        assert rate(step) == pytest.approx(0.4 * 0.97 ** ((step - 50) // 24))
    assert rate(73) > rate(74)


def test_cosine_falls_to_the_final_rate_over_the_epochs_after_the_warm_up():
    rate = make_schedule("cosine", **RUN, end_lr=0.1)
    for step in (50, 80, 125, 199):
        want = 0.1 + 0.3 * 0.5 * (1 + math.cos(math.pi * (step - 50) / 150))
        assert rate(step) == pytest.approx(want)
    assert rate(125) == pytest.approx(0.25)
    assert rate(200) == pytest.approx(0.1) == rate(10_000)


def test_linear_falls_to_0_at_the_end_of_the_run():
    rate = make_schedule("linear", **RUN)
    assert rate(125) == pytest.approx(0.2)
    assert rate(200) == 0.0 == rate(500)


def test_linearcosine_follows_its_formula():
    rate = make_schedule("linearcosine", **RUN)
    assert rate(125) == pytest.approx(0.4 * (0.5 * 0.5 + 0.001))
    assert rate(200) == pytest.approx(0.4 * 0.001)


def test_step_changes_at_epochs_30_60_80_of_90_and_scales_with_the_run():
    run = {"base_lr": 1.0, "steps_per_epoch": 7, "warmup_epochs": 5}
    rate = make_schedule("step", **run, total_epochs=90)
    for epoch, want in ((29, 1), (30, 0.1), (59, 0.1), (60, 0.01), (79, 0.01), (80, 1e-3)):
        assert rate(epoch * 7) == pytest.approx(want)
        assert rate(epoch * 7 + 6) == pytest.approx(want)
    half = make_schedule("step", **run, total_epochs=45)
    assert half(15 * 7 - 1) == 1
    assert half(15 * 7) == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["piecewise", "piecewise_constant_with_warmup"])
def test_piecewise_boundaries_count_from_the_start_of_the_run(name):
    rate = make_schedule(name, **RUN, **PIECES)
    assert rate(79) == 0.4
    assert rate(80) == rate(159) == 0.2
    assert rate(160) == rate(1000) == pytest.approx(0.004)


def test_step_accepts_other_boundaries():
    rate = make_schedule("step", **RUN, boundaries=[10])
    assert rate(99) == 0.4
    assert rate(100) == pytest.approx(0.04)


def test_epochs_may_be_fractions():
    rate = make_schedule("cosine", **{**RUN, "warmup_epochs": 0.5, "total_epochs": 1.5})
    assert rate(4) == 0.4
    assert rate(15) == pytest.approx(0, abs=1e-12)


def test_scaled_lr_is_proportional_to_the_batch_size():
    assert scaled_lr(0.008, 1024) == pytest.approx(0.064)
    assert scaled_lr(0.1, 512, base=256) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="positive"):
        scaled_lr(0.1, 0)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("cosin", {}, "did you mean 'cosine'"),
        ("polynomial-of-degree-7", {}, "Known: exponential, cosine"),
        ("cosine", {"warmup_epochs": 20}, "--warmup_epochs"),
        ("cosine", {"warmup_epochs": 30}, "--warmup_epochs"),
        ("cosine", {"warmup_epochs": -1}, "--warmup_epochs"),
        ("cosine", {"total_epochs": 0}, "longer than 0"),
        ("cosine", {"steps_per_epoch": 0}, "steps_per_epoch"),
        ("cosine", {"base_lr": float("nan")}, "learning rate"),
        ("cosine", {"end_lr": -1.0}, "--lr_end"),
        ("cosine", {"boundaries": [3]}, "no effect"),
        ("step", {"multipliers": [1, 2]}, "no effect"),
        ("exponential", {"end_lr": 0.1}, "no effect"),
        ("exponential", {"decay_epochs": 0}, "decay_epochs"),
        ("step", {"boundaries": [8, 6]}, "ascend"),
        ("step", {"boundaries": [8, 8]}, "ascend"),
        ("piecewise", {}, "needs --lr_boundaries"),
        ("piecewise", {"boundaries": [8], "multipliers": [1]}, "--lr_multipliers needs 2"),
    ],
)
def test_invalid_settings_are_refused(name, change, message):
    with pytest.raises(ValueError, match=message):
        make_schedule(name, **{**RUN, **change})


def test_a_negative_step_is_refused():
    with pytest.raises(ValueError, match="from 0"):
        make_schedule("constant", **RUN)(-1)


def test_light_modules_do_not_import_tensorflow():
    code = (
        "import sys, utils, utils.optim.lr_scaling_and_decay, utils.metrics, utils.logging\n"
        "import utils.optim.optimizers\n"
        "heavy = {'tensorflow', 'keras', 'rich', 'dllogger'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
