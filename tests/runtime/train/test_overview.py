"""The overview that a run prints before its first step."""

from types import SimpleNamespace

import keras
import pytest

from convoy.runtime.settings.config import Config
from convoy.runtime.train.overview import overview
from convoy.utils.text import counted


def said(units=3, momentum=0.5, steps=50, epochs=2, batch=4, warmup=0):
    """Returns the overview's lines for a small network."""
    inputs = keras.layers.Input((10,))
    x = keras.layers.Dense(units, use_bias=False)(inputs)
    model = keras.Model(inputs, keras.layers.BatchNormalization(momentum=momentum)(x))
    config = Config(train_batch_size=batch, max_epochs=epochs, image_size=32)
    schedule = SimpleNamespace(peak=0.1, warmup_steps=warmup)
    state = SimpleNamespace(model=model, step=0)
    return [" ".join(x.split()) for x in overview(config, state, schedule, 1, batch, steps)]


def test_counts_of_one_are_printed_in_the_singular():
    lines = said(steps=1, epochs=1, batch=1, warmup=1)
    assert lines[1] == "1 image an update, 1 update an epoch, 1 in 1 epoch"
    assert "after 1 epoch of warm-up" in lines[2]
    lines = said(steps=1000, epochs=300, warmup=150_000)
    assert lines[1] == "4 images an update, 1,000 updates an epoch, 300,000 in 300 epochs"
    assert "after 150 epochs of warm-up" in lines[2]
    assert counted(0.2, "epoch") == "0.2 epochs"


@pytest.mark.parametrize(
    ("units", "text"),
    [(3, "42 parameters"), (4429, "62 thousand parameters"), (100_000, "1.4 million parameters")],
)
def test_small_numbers_of_parameters_are_not_rounded_to_0_million(units, text):
    """Each unit has ten weights and four batch-norm numbers."""
    assert f": {text}, images of 32 px" in said(units)[0]


@pytest.mark.parametrize(
    ("momentum", "text"),
    [
        (0.9, None),
        (0.974, "7% of batch norm's running averages will still be the values that they start from,"
         " so evaluations may come out a little worse than they should: train longer"),
        (0.99, "after 100 updates, 37% of batch norm's running averages will still be the values"
         " that they start from, so evaluations will be wrong: train longer, or lower"
         " --bn_momentum (it is 0.99)"),
    ],
)  # fmt: skip
def test_a_run_too_short_for_batch_norms_momentum_is_warned_of(momentum, text):
    warnings = [line for line in said(momentum=momentum) if line.startswith("WARNING")]
    assert len(warnings) == (text is not None)
    assert all(text in line for line in warnings)
