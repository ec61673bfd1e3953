"""Maps a level of strength to each operation's argument, with one table per publication.

Sources: "tf" is AutoAugment (arXiv:1805.09501) and RandAugment (arXiv:1909.13719) as implemented in
TensorFlow's model garden; "original" is the AutoAugment paper itself; "increasing" is timm 1.0's
RandAugment with `inc1`; "wide" is TrivialAugment (arXiv:2103.10158) as in torchvision 0.20. This
module needs no TensorFlow.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """Computes an operation's argument from a level L: `base ± span · L/10`, within limits.

    Attributes:
        base: the argument at level 0.
        span: what level 10 adds. `TRANSLATE` and `CUTOUT` are placeholders for the two constants.
        signed: the span is subtracted instead with probability 1/2.
        whole: "down" or "nearest" rounds the span's part to a whole number; "" does not.
        least, most: limits of the argument.
    """

    base: float = 0.0
    span: float = 0.0
    signed: bool = False
    whole: str = ""
    least: float = -math.inf
    most: float = math.inf


TRANSLATE, CUTOUT = math.inf, -math.inf  # placeholders for the constants
UNUSED = Range()
_ENHANCERS = ("Color", "Contrast", "Brightness", "Sharpness")

# Posterize keeps at least 1 bit. The published rule int(4 · L/10) is 0 below level 2.5, and v0 has
# a step at level 2; timm's 4 − int(4 · L/10) is 0 at level 10. With 0 bits Pillow returns a black
# image, which destroys the example. The papers' TensorFlow code shifted an 8-bit value by 8, which
# is undefined; on x86 it kept one bit. The published accuracies come from that, and it leaves
# something to learn from.
_bits = functools.partial(Range, whole="down", least=1, most=8)
_TF: dict[str, Range] = {
    "Rotate": Range(span=30, signed=True),
    "ShearX": Range(span=0.3, signed=True),
    "ShearY": Range(span=0.3, signed=True),
    "TranslateX": Range(span=TRANSLATE, signed=True),
    "TranslateY": Range(span=TRANSLATE, signed=True),
    **dict.fromkeys(_ENHANCERS, Range(0.1, 1.8)),
    "Posterize": _bits(0, 4),
    # Level 10 gives 256, which inverts no pixel: it must not be narrowed to 8 bits.
    "Solarize": Range(0, 256, whole="down"),
    "SolarizeAdd": Range(0, 110, whole="down"),
    "Cutout": Range(0, CUTOUT, whole="down"),
}
RANGES: dict[str, dict[str, Range]] = {
    # TensorFlow's AutoAugment and RandAugment.
    "tf": _TF,
    # The AutoAugment paper's table 6: Posterize keeps 4 to 8 bits.
    "original": _TF | {"Posterize": _bits(4, 4)},
    # timm's `inc1`: every operation is stronger at a higher level.
    "increasing": _TF
    | dict.fromkeys(_ENHANCERS, Range(1, 0.9, signed=True, least=0.1))
    | {
        "Posterize": _bits(4, -4),
        "Solarize": Range(256, -256, whole="down", least=0),
        "SolarizeAdd": Range(0, 110, whole="down", most=128),
    },
    # TrivialAugment's wide ranges, as in torchvision.
    "wide": dict.fromkeys(_ENHANCERS, Range(1, 0.99, signed=True))
    | {
        "Rotate": Range(span=135, signed=True),
        "ShearX": Range(span=0.99, signed=True),
        "ShearY": Range(span=0.99, signed=True),
        "TranslateX": Range(span=TRANSLATE, signed=True, whole="down"),
        "TranslateY": Range(span=TRANSLATE, signed=True, whole="down"),
        "Posterize": Range(8, -6, whole="nearest"),
        "Solarize": Range(255, -255, whole="down"),
    },
}
