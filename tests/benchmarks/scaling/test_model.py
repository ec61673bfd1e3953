"""The scaling model is fitted to rows of up to 8 GPUs and predicts the others.

The page must equal what the script prints.
"""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks.scaling import model, tables
from benchmarks.scaling.model import fit, hours_published, setups, slowest, two_processes
from benchmarks.scaling.plot import plot
from convoy.model.catalog import get_arch
from tests.parameter_count import parameter_count


@pytest.fixture(scope="module")
def fitted():
    return fit(setups())


# B4 in FP32 on V100: the page explains why nothing known at 8 GPUs can predict these.
MISSED = {("B4 V100-32G FP32", 32), ("B4 V100-32G FP32", 64)}


def test_rows_of_more_than_8_gpus_are_predicted_within_10_percent(fitted):
    errors = {
        (setup.name, n): predicted / known - 1
        for setup, n, known, predicted, _ in tables.held_out(fitted)
    }
    assert len(errors) == 10
    assert {row for row, error in errors.items() if abs(error) > 0.10} == MISSED


def test_rows_of_more_than_8_gpus_do_not_change_the_fit(fitted):
    only = [
        replace(s, published={n: v if n <= 8 else 1.0 for n, v in s.published.items()})
        for s in setups()
    ]
    assert fit(only) == fitted
    other = [replace(s, published=s.published | {8: 0.9 * s.published[8]}) for s in setups()]
    assert fit(other) != fitted


def test_the_page_and_the_plot_equal_the_scripts_output(fitted):
    page = tables.PAGE.read_text()
    assert tables.with_tables(page, tables.tables(fitted)) == page
    drawn = tables.PAGE.with_suffix(".svg").read_text()
    assert plot(fitted) == drawn
    ElementTree.fromstring(drawn)


def test_a_page_without_marks_is_refused(fitted):
    with pytest.raises(SystemExit, match="marks"):
        tables.with_tables("no marks", tables.tables(fitted))


def test_the_fitted_values_are_plausible(fitted):
    """They lie inside the grid, not at its edge.

    Each core takes at least 1.2 ms per image, as decoding one takes here, and at most ten times
    that.
    """
    assert model.SIGMAS[0] < fitted.sigma < model.SIGMAS[-1]
    assert model.EXPONENTS[0] < fitted.exponent < model.EXPONENTS[-1]
    cores = {m["host"]: m["cores"] for m in model.data()["machines"].values()}
    for (host, _), ceiling in fitted.ceilings.items():
        assert 1.2e-3 < cores[host] / ceiling < 12e-3


def test_the_exchanged_bytes_are_those_of_the_models_gradients():
    by_name = {s.name: s for s in setups()}
    for name, arch, size in (
        ("B0 A100 AMP", "efficientnet-b0", 2),
        ("B4 V100-32G FP32", "efficientnet-b4", 2),
        ("ResNet50 A100 TF32", "resnet50", 4),
    ):
        assert by_name[name].message == size * parameter_count(get_arch(arch), trainable=True)


def test_the_time_of_an_exchange_follows_from_its_bytes_and_hops(fitted):
    """By hand for a ring of 8: 14 messages of an eighth over NVLink, and 14 latencies."""
    setup = next(s for s in setups() if s.name == "ResNet50 A100 TF32")
    by_hand = 14 * (setup.message / 8 / (0.7 * 300e9) + 5e-6)
    assert fitted.exchange(setup, 8) == pytest.approx(by_hand)
    assert fitted.exchange(setup, 1) == 0
    more = fitted.exchange(setup, 16) - by_hand
    assert more == pytest.approx(2 * (setup.message / 2 / (0.7 * 200e9) + 10e-6))


def test_the_expected_slowest_of_n_processes_is_right(fitted):
    """Compares with the exact value for two, 1/sqrt(pi), and with a simulation of eight."""
    assert slowest(1) == 0
    assert slowest(2) == pytest.approx(1 / np.sqrt(np.pi), rel=1e-4)
    drawn = np.random.default_rng(0).standard_normal((200_000, 8)).max(1).mean()
    assert slowest(8) == pytest.approx(drawn, rel=0.01)


def test_published_hours_come_from_the_recipes():
    assert len(hours_published()) == 16
    assert {n for _, n, *_ in hours_published()} == {8, 16, 32, 64}


def test_figures_of_two_processes_equal_a_calculation_by_hand():
    """Two launches of two processes with two steps; the process that comes last does not wait."""
    fast = {"gradients": [1.0, 1.0], "exchange": [0.3, 0.5], "update": [0.1, 0.1]}
    slow = {"gradients": [1.2, 1.4], "exchange": [0.1, 0.1], "update": [0.1, 0.1]}
    alone = {"gradients": [0.9, 0.9], "exchange": [0.0, 0.0], "update": [0.1, 0.1]}
    found = two_processes({"independent": [[alone] * 2], "Horovod": [[fast, slow]] * 2}, batch=8)
    assert found["alone"] == {"gradients": 0.9, "update": 0.1}
    assert found["joined"] == {"gradients": 1.1, "update": 0.1}
    assert found["slower_exchange"] == 0.1
    assert found["variation"] == pytest.approx((0 + 0.1 / 1.3) / 2, abs=1e-3)
    assert found["efficiency"] == pytest.approx(1 / 1.5, abs=1e-3)
    assert found["exchange_share"] == pytest.approx(1.0 / 6.0, abs=1e-3)
