"""Fixtures for the tests of evaluation."""

import pytest

from tests.runtime.evaluate.random_logits import CLASSES, random_logits
from tests.runtime.logits import identity_model


@pytest.fixture(scope="session")
def identity():
    """A model whose logits are its input, so that NumPy knows them too."""
    return identity_model(CLASSES)


@pytest.fixture(scope="session")
def examples():
    """Random logits and labels; see `random_logits`."""
    return random_logits()
