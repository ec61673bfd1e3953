"""Each convolution of a network is measured, in all passes of a training step."""

import keras
import pytest

from benchmarks.costs.convolutions import BOTH, PASSES, measure, table
from convoy.model import build_model
from convoy.model.summary import flops


@pytest.fixture(scope="module")
def result():
    yield measure("efficientnet-test", 32, 2, "float32", rounds=1)
    keras.config.set_dtype_policy("float32")


def test_all_arithmetic_of_the_network_is_measured(result):
    model = build_model("efficientnet-test", image_size=32)
    images = 2
    forward = result.total((PASSES[0],), lambda case: case.operations) / 2 / images
    classifier = model.layers[-1].count_params()  # with its bias
    assert 0 <= flops(model) - forward <= classifier


def test_a_gradient_of_the_image_is_not_measured(result):
    for shape, cases in result.layers.items():
        if shape.first:
            assert PASSES[1] not in cases
        else:
            assert BOTH in cases or set(cases) == set(PASSES)


def test_the_table_begins_with_what_loses_most_and_ends_with_the_sums(result):
    *lines, last = table(result, rows=3)
    assert len(lines) == 2 + 3
    lost = [float(line.split("|")[-2]) for line in lines[2:]]
    assert lost == sorted(lost, reverse=True)
    assert last.startswith("| all: ")
    assert f"| {result.counts.total()} |" in last
