"""Fixtures for the native operations of training."""

import pytest

from convoy.model import native

LEVELS = {0: "baseline", 3: "x86-64-v3", 4: "x86-64-v4", 5: "x86-64-v4 with bfloat16"}


@pytest.fixture(scope="module")
def ops():
    """The native operations; fails where they are not built."""
    module, state = native.LIBRARY.load()
    if module is None:
        pytest.fail(f"the native operations are {state}")
    return module


@pytest.fixture(params=LEVELS, ids=["baseline", "v3", "v4", "v4 with bfloat16"])
def level(request, ops):
    """Limits the native operations to one instruction set and yields its name."""
    native.controls().convoy_limit_level(request.param)
    found = native.controls().convoy_level().decode()
    if found != LEVELS[request.param]:
        native.controls().convoy_limit_level(5)
        pytest.skip("this processor lacks those instructions")
    yield found
    native.controls().convoy_limit_level(5)
