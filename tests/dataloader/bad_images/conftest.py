"""The image from which the tests of this folder make others."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def photo():
    """A smooth colour image of 60 x 40 pixels."""
    y, x = np.mgrid[:40, :60]
    return Image.fromarray(np.stack([x * 4, y * 6, 255 - x - y], -1).astype(np.uint8))
