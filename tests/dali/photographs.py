"""Makes test photographs."""

import numpy as np
from PIL import Image

from tests.dataloader.packing import encoded


def photograph(i):
    """Returns a smooth JPEG of about 90 × 100 pixels; every fifth is grey."""
    pixels = np.random.default_rng(i).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    size = (90 + i % 19, 110 - i % 17)
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    return encoded(image.convert("L") if i % 5 == 4 else image, quality=90)
