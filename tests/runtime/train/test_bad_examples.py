"""The messages about unreadable training images, after all processes have joined their lists."""

from types import SimpleNamespace

import pytest

from convoy.runtime.train.bad_examples import share_bad_examples


@pytest.mark.parametrize(("bad", "says"), [(1, "1 training image "), (2, "2 training images ")])
def test_too_many_unreadable_images_end_the_run_with_a_remedy(bad, says):
    data = SimpleNamespace(bad_examples={i: f"{i}.jpg: no bytes" for i in range(bad)})
    data.num_examples = 54
    line, error = share_bad_examples(data, 0.001)
    assert not line
    assert str(error).startswith(f"{says}cannot be read")
    assert str(error).endswith("--max_bad_examples 54")
    line, error = share_bad_examples(data, 54.0)
    assert error is None
    assert f"{bad} unreadable training image" in line
