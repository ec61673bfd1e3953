"""Builds EfficientNet v1, its Lite variants, and V2.

V1 is Tan and Le 2019 (arXiv:1905.11946), V2 the same authors' 2021 (arXiv:2104.00298).

They are functional Keras models. Layers have keras.applications' names, so weights and rules about
names work for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from convoy.model import catalog, initializers
from convoy.model.initializers import layer_seed
from convoy.model.layers import Excite, Normalize
from convoy.model.options import NHWC, check_data_format, check_options
from convoy.model.parts import Parts
from convoy.model.stochastic_depth import StochasticDepth


def build(
    arch: catalog.Arch,
    *,
    num_classes: int = 1000,
    image_size: int | None = None,
    dropout: float | None = None,
    stochastic_depth: float | None = None,
    activation: str | None = None,
    batch_norm: str = "default",
    bn_momentum: float | None = None,
    bn_epsilon: float | None = None,
    weight_init: str = "fan_out",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    padding: str | None = None,
    seed: int | None = None,
    any_size: bool = False,
    data_format: str = NHWC,
) -> keras.Model:
    """Builds an EfficientNet under the current Keras dtype policy. None means the arch's default.

    Args:
        arch: an entry of `model.catalog` of family "efficientnet".
        num_classes: number of logits.
        image_size: height and width in pixels.
        dropout: rate before the classifier.
        stochastic_depth: rate r; block i of N is dropped with probability r*i/N, i from 0.
        activation: any of Keras' names, also inside squeeze-and-excitation (its gate is a sigmoid).
        batch_norm: "default", or "syncbn" for statistics over the batches of all processes
            together.
        bn_momentum: for every batch norm, in Keras' sense.
        bn_epsilon: for every batch norm.
        weight_init: "fan_out" or "fan_in"; see `model.initializers`.
        mean: per channel, in 0-255.
        std: per channel, in 0-255.
        padding: "same" (default) as in TensorFlow and the paper's code, or "symmetric" as in
            PyTorch.
        seed: seed of initial weights and dropout; every layer derives its own from it. None:
            random.
        any_size: accept images of any size, not only of `image_size`.
        data_format: "channels_first" computes in NCHW after the normalisation. Input, weights and
            their names do not change; without a GPU it runs only if XLA compiles the whole model.

    Returns:
        A functional model from images `(batch, image_size, image_size, 3)`, uint8 or float in
        0-255, to float32 logits `(batch, num_classes)`.

    Raises:
        ValueError: an argument is out of range or unknown.
    """
    image_size = arch.resolution if image_size is None else image_size
    dropout = arch.dropout if dropout is None else dropout
    stochastic_depth = arch.stochastic_depth if stochastic_depth is None else stochastic_depth
    activation = arch.activation if activation is None else activation
    padding = "same" if padding is None else padding
    catalog.check_image_size(arch, image_size)
    check_options(num_classes, dropout, stochastic_depth, activation, batch_norm, padding)
    check_data_format(data_format)
    initializers.check_mode(weight_init)

    parts = Parts(
        activation=activation,
        batch_norm=batch_norm,
        bn_momentum=arch.bn_momentum if bn_momentum is None else bn_momentum,
        bn_epsilon=arch.bn_epsilon if bn_epsilon is None else bn_epsilon,
        weight_init=weight_init,
        padding=padding,
        data_format=data_format,
        seed=seed,
    )

    side = None if any_size else image_size
    images = keras.Input((side, side, 3), name="image")
    x = Normalize(
        arch.mean if mean is None else mean,
        arch.std if std is None else std,
        name="normalization",
    )(images)

    x = parts.conv(parts.arrange(x), catalog.stem_filters(arch), "stem_conv", kernel=3, stride=2)
    x = parts.norm(x, "stem_bn", act=True)

    for block in catalog.efficientnet_blocks(arch):
        x = _block(x, block, stochastic_depth * block.drop_position, parts)

    x = parts.conv(x, catalog.top_filters(arch), "top_conv")
    x = parts.norm(x, "top_bn", act=True)
    x = parts.mean(x, "avg_pool")
    if dropout > 0:
        x = layers.Dropout(dropout, seed=layer_seed(seed, "top_dropout"), name="top_dropout")(x)
    logits = layers.Dense(
        num_classes,
        kernel_initializer=initializers.dense_initializer(
            weight_init, layer_seed(seed, "predictions")
        ),
        dtype="float32",  # a 16-bit loss is too coarse, whatever the policy
        name="predictions",
    )(x)
    return keras.Model(images, logits, name=arch.name.replace("-", "_"))


def _block(inputs: Any, block: catalog.Block, drop_rate: float, parts: Parts) -> Any:
    """Builds the branch with stochastic depth, and adds the input if the shapes allow it."""
    name = block.name
    x = (_fused_branch if block.fused else _branch)(inputs, block, parts)
    if not block.has_skip:
        return x
    if drop_rate > 0:
        seed = layer_seed(parts.seed, f"{name}_drop")
        x = StochasticDepth(drop_rate, seed=seed, name=f"{name}_drop")(x)
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
