"""What a trial of a batch trains with."""

import keras
import pytest

from convoy.runtime import batch_trial
from convoy.runtime.benchmark import training
from convoy.runtime.settings.config import Config


@pytest.fixture
def half():
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy("float32")


def test_a_trial_computes_in_the_runs_precision(half, monkeypatch):
    used = []
    monkeypatch.setattr(training, "train", lambda *_: used.append(keras.config.dtype_policy().name))
    assert batch_trial._try(Config())["peak"] > 0
    assert used == ["mixed_bfloat16"]
