import pytest

from convoy.model import native


@pytest.fixture(scope="module")
def ops():
    module, state = native.LIBRARY.load()
    if module is None:
        pytest.fail(f"the native operations are {state}")
    return module
