"""Curves of runs: the axis when the loss has a spike."""

from __future__ import annotations

import numpy as np
import pytest

from convoy.runtime.report.curves import CHARTS, axis_top, draw
from convoy.runtime.run_folder.history import History

LOSS = next(chart for chart in CHARTS if chart.name == "loss")


def falling(count=40):
    return 0.5 + 6.5 * 0.8 ** np.arange(count)


def history(training, evaluation):
    found = History()
    for step, loss in enumerate(training, 1):
        found.steps[step] = {"train.loss": float(loss)}
    for epoch, loss in enumerate(evaluation, 1):
        found.epochs[epoch] = {"eval_loss": float(loss), "step": epoch * 4}
    return found


def test_a_falling_curve_is_shown_whole():
    assert axis_top([falling()]) is None
    assert axis_top([falling(), np.linspace(2, 1, 10)]) is None
    assert axis_top([np.ones(5)]) is None


@pytest.mark.parametrize("spike", [300.0, 1.0e6])
def test_a_spike_is_cut_off_and_its_height_is_stated(spike):
    evaluation = np.concatenate([np.linspace(3, 1, 11), [spike]])
    top = axis_top([falling(), evaluation])
    assert 3 < top < 20
    with draw(LOSS, history(falling(), evaluation)) as plot:
        (low, high), text = plot.axes.get_ylim(), plot.axes.texts[0].get_text()
        assert high == top
        assert low < 0.6
        assert text == f"1 value above, up to {spike:.3g}"


def test_a_curve_with_many_large_values_has_a_logarithmic_axis():
    evaluation = np.array([2.3, 5, 1e3, 5e4, 1e6, 1.5e5, 900, 12, 3, 2])
    assert axis_top([falling(), evaluation]) is None
    with draw(LOSS, history(falling(), evaluation)) as plot:
        assert plot.axes.get_yscale() == "log"
