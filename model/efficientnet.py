"""Builds EfficientNet v1, its Lite variants, and V2.

V1 is Tan and Le 2019 (arXiv:1905.11946), V2 the same authors' 2021 (arXiv:2104.00298).

They are functional Keras models. Layers have keras.applications' names, so weights and rules about
names work for both.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from convoy.model import catalog, initializers
from convoy.model.layers import Excite
from convoy.model.options import Options, apply_options
from convoy.model.parts import Parts


def build(arch: catalog.Arch, options: Options) -> keras.Model:
    """Builds an EfficientNet under the current Keras dtype policy.

    Args:
        arch: an entry of `model.catalog` of family "efficientnet".
        options: what the caller chose.

    Returns:
        A functional model from images `(batch, image_size, image_size, 3)`, uint8 or float in
        0-255, to float32 logits `(batch, num_classes)`.

    Raises:
        ValueError: an option is out of range or unknown.
    """
    arch = apply_options(options, arch)
    parts = Parts(arch, options)
    images, x = parts.normalised_input()

    x = parts.conv(x, catalog.stem_filters(arch), "stem_conv", kernel=3, stride=2)
    x = parts.norm(x, "stem_bn", act=True)

    for block in catalog.efficientnet_blocks(arch):
        x = _block(x, block, parts)

    x = parts.conv(x, catalog.top_filters(arch), "top_conv")
    x = parts.norm(x, "top_bn", act=True)
    x = parts.mean(x, "avg_pool")
    x = parts.dropout(x, "top_dropout")
    kernel = initializers.dense_initializer(options.weight_init, parts.seed("predictions"))
    logits = parts.logits(x, "predictions", kernel_initializer=kernel)
    return keras.Model(images, logits, name=arch.name.replace("-", "_"))


def _block(inputs: Any, block: catalog.Block, parts: Parts) -> Any:
    """Builds the branch with stochastic depth, and adds the input if the shapes allow it."""
    name = block.name
    x = (_fused_branch if block.fused else _branch)(inputs, block, parts)
    if not block.has_skip:
        return x
    rate = parts.arch.stochastic_depth * block.drop_position
    x = parts.drop_branch(x, rate, f"{name}_drop")
    return layers.Add(name=f"{name}_add")([x, inputs])


def _fused_branch(x: Any, block: catalog.Block, parts: Parts) -> Any:
    """Builds a convolution in place of expansion and depthwise, then the projection.

    Without expansion, it builds only one convolution.
    """
    name, kernel, stride = block.name, block.kernel, block.stride
    if block.expand == 1:
        x = parts.conv(x, block.filters_out, f"{name}_project_conv", kernel, stride)
        return parts.norm(x, f"{name}_project_bn", act=True)
    x = parts.conv(x, block.filters_expanded, f"{name}_expand_conv", kernel, stride)
    x = parts.norm(x, f"{name}_expand_bn", act=True)
    return parts.norm(
        parts.conv(x, block.filters_out, f"{name}_project_conv"), f"{name}_project_bn"
    )


def _branch(x: Any, block: catalog.Block, parts: Parts) -> Any:
    """Builds expansion, depthwise, squeeze-and-excitation, projection."""
    name = block.name
    if block.expand != 1:
        x = parts.conv(x, block.filters_expanded, f"{name}_expand_conv")
        x = parts.norm(x, f"{name}_expand_bn", act=True)

    x = parts.depthwise(x, f"{name}_{block.depthwise}", block.kernel, block.stride)
    x = parts.norm(x, f"{name}_bn", act=True)

    if block.squeeze_units:
        x, gate = parts.squeeze(x, f"{name}_se_squeeze")
        gate = parts.conv(gate, block.squeeze_units, f"{name}_se_reduce", bias=True)
        gate = parts.act(gate, f"{name}_se_activation")
        gate = parts.conv(gate, block.filters_expanded, f"{name}_se_expand", bias=True)
        gate = layers.Activation("sigmoid", name=f"{name}_se_gate")(gate)
        x = Excite(name=f"{name}_se_excite")([x, gate])

    x = parts.conv(x, block.filters_out, f"{name}_project_conv")
    return parts.norm(x, f"{name}_project_bn")
