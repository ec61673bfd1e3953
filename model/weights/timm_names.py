"""Reads from timm's names what a model's tensors do not show, as many networks share them.

Weights are named `architecture.tag`, on the hub, by its cache (`models--timm--architecture.tag`)
and, with `_` and a checksum, in timm's older file names. tests/parity/test_timm_names.py compares
this with the `default_cfgs` of timm 1.0.31.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

# Weights for images normalised to -1 … 1: V2, Lite and AdvProp by TensorFlow's authors (adv- in
# efficientnet_pytorch), and timm's recipes that copy MobileNetV4's.
_HALF = re.compile(
    r"adv-efficientnet|tf_efficientnet(v2_[^b]|v2_b\d+[._]in21k|_lite)"
    r"|tf_efficientnet_[a-z0-9]+[._]ap([._-]|$)|[._]ra4_e3600"
)
# Strides that blur or average: the same tensors, but another network.
_ANTIALIASED = re.compile(r"(resnet|resnext|efficientnet_)(blur|aa)[_\d]")


@dataclass(frozen=True)
class Said:
    """Facts in the names; None if they say nothing.

    Attributes:
        tf: whether it is an EfficientNet with TensorFlow's padding and norms.
        half: whether images are normalised with 0.5 and 0.5, not with ImageNet's usual values.
        stranger: the name of a network with the same tensors that we do not have.
    """

    tf: bool | None
    half: bool
    stranger: str | None


def read_names(texts: Iterable[str]) -> Said:
    """Reads names, most trustworthy first: of model, file and folders."""
    texts = [text.lower() for text in texts]
    efficientnets = [text for text in texts if re.search(r"efficientnet(v2)?_", text)]
    return Said(
        tf="tf_efficientnet" in efficientnets[0] if efficientnets else None,
        half=any(_HALF.search(text) for text in texts),
        stranger=next((text for text in texts if _ANTIALIASED.search(text)), None),
    )
