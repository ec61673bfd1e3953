"""Describes a weight file that does not belong to one of our networks. Pure functions on names.

The marks come from models built with timm 1.0, torchvision 0.28, transformers 5 and Keras 3.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping

import numpy as np

from convoy.model.catalog import get_arch, list_archs

# Files that look right but are not, and why.
_ALMOST = (
    (r"conv1_conv/kernel", "a ResNet of keras.applications: its stride lies on the first 1x1"
     " convolution (v1) and its convolutions have biases, so it is another network than v1.5"),
    (r"layer0\.conv1\.weight", "a SENet of the original code (timm's legacy_*): its pooling pads"
     " differently, so it is another network"),
)  # fmt: skip
# Networks that we do not build, by names that only they have. The first match wins.
_OTHERS = (
    ("a Swin Transformer", r"(.*\.)?relative_position_bias_table|swin\..*"),
    ("a Vision Transformer", r"(vit\.embeddings\.|deit\.embeddings\.)?(cls|class)_token"),
    ("an MLP-Mixer", r"blocks\.0\.mlp_tokens\..*"),
    (
        "a ConvNeXt",
        r"stages\.0\.blocks\.0\.(gamma|conv_dw\..*)|features\.1\.0\.layer_scale|convnext.*",
    ),
    ("a DenseNet", r"features\.denseblock1\..*|conv2_block1_0_bn/.*"),
    ("a RegNet", r"s1\.b1\.conv1\.conv\.weight|trunk_output\.block1\..*|regnet.*"),
    ("an Inception", r"conv2d_1a(_3x3)?\.conv\.weight|mixed_5b\..*|mixed0/.*"),
    ("a MobileNetV3", r"conv_head\.bias|expanded_conv/.*|features\.1\.block\.0\.0\.weight"),
    ("a MobileNetV2", r"features\.1\.conv\.0\.0\.weight|expanded_conv_depthwise/.*"),
    ("a MobileNet", r"conv_dw_1/.*"),
    (
        "a pre-activation ResNet (V2)",
        r"stages\.0\.blocks\.0\.norm1\.weight|conv2_block1_preact_bn/.*",
    ),
    ("a ShuffleNet", r"stage2\.0\.branch1\.0\.weight"),
    ("an HRNet", r"transition1\.0\.0\.weight"),
    ("an Xception", r"block2_sepconv1/.*|blocks\.0\.stack\.conv1\..*"),
    ("a VGG or AlexNet", r"features\.0\.bias|block1_conv1/kernel"),
)


def network(names: Collection[str]) -> str | None:
    """Returns the kind of network with tensors of these names, such as "a Vision Transformer"."""
    lower = [name.lower() for name in names]
    for kind, mark in _OTHERS:
        pattern = re.compile(mark)
        if any(pattern.fullmatch(name) for name in lower):
            return kind
    return None


def why_not(arrays: Mapping[str, np.ndarray], called: str | None = None) -> str:
    """Says why none of our names fits, as the end of a sentence "it holds …".

    Args:
        arrays: the file's, by name.
        called: the model's name in the file.
    """
    for mark, reason in _ALMOST:
        if any(re.fullmatch(mark, name) for name in arrays):
            return reason
    kind, name = network(arrays), f" ({called})" if called else ""
    if kind:
        return f"{kind}{name}, which is not built here. {nearest(arrays)}"
    some = ", ".join(sorted(arrays)[:4])
    what = f"weights{name} under names that belong to no known EfficientNet or ResNet"
    return f"{what} ({some}, …). {nearest(arrays)}"


def nearest(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns a sentence with the name of our architecture with about as many parameters."""
    values = max(1, sum(array.size for array in arrays.values()))
    ours = [get_arch(name) for name in list_archs() if not name.endswith("-test")]
    near = min(
        (arch for arch in ours if arch.available),
        key=lambda arch: abs(math.log(arch.params_1000 / values)),
    )
    return f"Nearest in size here: {near.name} ({near.params_1000 / 1e6:.1f} million parameters)"
