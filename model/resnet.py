"""Builds ResNet v1.5, ResNet-D, ResNet-RS, ResNeXt and SE-ResNeXt as functional Keras models.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016 (arXiv:1512.03385), with the
stride on the 3x3 convolution instead of the first 1x1 ("v1.5"); ResNeXt: Xie et al., CVPR 2017
(arXiv:1611.05431); squeeze-and-excitation: Hu et al., CVPR 2018 (arXiv:1709.01507); ResNet-D: He
et al., CVPR 2019 (arXiv:1812.01187); ResNet-RS: Bello et al., NeurIPS 2021 (arXiv:2103.07579).

Layers have torchvision's and timm's names with underscores for dots: `conv1`, `bn1`,
`layer1_0_conv1`, `layer1_0_bn1`, ..., `layer1_0_downsample_conv` (there `downsample.0`) and
`layer1_0_downsample_bn` (`downsample.1`), `layer1_0_se_reduce` and `layer1_0_se_expand` (timm:
`se.fc1`, `se.fc2`), `fc`. The deep stem's names are `conv1_0` to `conv1_6`, and the convolution in
place of the max-pool is `maxpool_0`. Strided windows are padded equally on both sides, as in
PyTorch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from convoy.model import catalog, initializers
from convoy.model.initializers import layer_seed
from convoy.model.layers import Conv2D, Excite, Fork, Normalize
from convoy.model.options import NCHW, NHWC, check_data_format, check_options
from convoy.model.parts import Parts
from convoy.model.stochastic_depth import StochasticDepth

CHUNK_CHANNELS = 16  # on CPUs, narrower groups are convolved together


@keras.saving.register_keras_serializable(package="convoy")
class GroupedConv2D(keras.layers.Conv2D):
    """Does `keras.layers.Conv2D` with `groups`, with fast training on every device.

    Variables, config and results are Conv2D's: one kernel `(height, width, in / groups, out)`.
    Input `(batch, height, width, channels)`, or as the data format says; output in the compute
    dtype.

    If the process has a GPU, it uses TensorFlow's own operation. On CPUs this lacks gradients
    (float16, or any dtype without oneDNN) and cannot be fused with a batch norm (without oneDNN),
    so Keras compiles it with XLA, which we measured to be 80 times slower than our method: ordinary
    convolutions over chunks of the channels. Groups of fewer than 16 channels share a chunk, whose
    kernel is zero between the groups.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"data_format": NHWC, **kwargs})

    def convolution_op(self, inputs: Any, kernel: Any) -> tf.Tensor:
        """Convolves in groups; without a GPU, joins groups into fewer, wider ones."""
        inputs, kernel = map(keras.ops.convert_to_tensor, (inputs, kernel))
        if _has_gpu():
            return self._convolve(inputs, kernel)
        height, width, depth, filters = kernel.shape
        joined = math.gcd(self.groups, max(1, CHUNK_CHANNELS // depth))
        chunks = self.groups // joined
        each = filters // self.groups
        if joined > 1:
            apart = tf.reshape(tf.eye(joined, dtype=kernel.dtype), (1, 1, joined, 1, 1, joined, 1))
            kernel = tf.reshape(kernel, (height, width, 1, depth, chunks, joined, each)) * apart
            kernel = tf.reshape(kernel, (height, width, joined * depth, filters))
        axis = 1 if self.data_format == NCHW else -1
        parts = zip(tf.split(inputs, chunks, axis), tf.split(kernel, chunks, -1), strict=True)
        return tf.concat([self._convolve(x, k) for x, k in parts], axis)

    def _convolve(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        layout = "NCHW" if self.data_format == NCHW else "NHWC"
        return tf.nn.conv2d(
            x,
            kernel,
            self.strides,
            self.padding.upper(),
            data_format=layout,
            dilations=self.dilation_rate,
        )


def _has_gpu() -> bool:
    return bool(tf.config.list_logical_devices("GPU"))


class _Parts(Parts):
    """Makes layers like EfficientNet's `Parts`, with PyTorch's initial weights and with groups."""

    def conv(
        self, x: Any, filters: int, name: str, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> Any:
        x, padding = self._pad(x, kernel, stride, name)
        kind = Conv2D if groups == 1 else GroupedConv2D
        # With groups, the fans are k*k*in/groups and k*k*out, as in PyTorch.
        initializer = keras.initializers.VarianceScaling(
            2.0, self.weight_init, "untruncated_normal", seed=layer_seed(self.seed, name)
        )
        return kind(
            filters,
            kernel,
            strides=stride,
            padding=padding,
            data_format=self.data_format,
            groups=groups,
            use_bias=False,
            kernel_initializer=initializer,
            name=name,
        )(x)

    def linear(self, x: Any, filters: int, name: str) -> Any:
        """Applies a 1x1 convolution with bias: PyTorch's Linear on one pixel."""
        return layers.Conv2D(
            filters,
            1,
            data_format=self.data_format,
            name=name,
            **_linear_weights(x.shape[self.axis], self.seed, name),
        )(x)


def _linear_weights(fan_in: int, seed: int | None, name: str) -> dict[str, Any]:
    """Returns U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for kernel and bias, as for PyTorch's Linear."""
    bound = 1 / math.sqrt(fan_in)
    return {
        part: keras.initializers.RandomUniform(-bound, bound, layer_seed(seed, f"{name}/{part}"))
        for part in ("kernel_initializer", "bias_initializer")
    }


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
    zero_gamma: bool = False,
    se_ratio: float | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    padding: str | None = None,
    seed: int | None = None,
    any_size: bool = False,
    data_format: str = NHWC,
) -> keras.Model:
    """Builds a ResNet under the current Keras dtype policy. None means the arch's default.

    Args:
        arch: an entry of `model.catalog` of family "resnet".
        num_classes: number of logits.
        image_size: height and width in pixels.
        dropout: rate before the classifier.
        stochastic_depth: rate r; block i of N is dropped with probability r*i/N, i from 0.
        activation: any of Keras' names, also inside squeeze-and-excitation (its gate is a sigmoid).
        batch_norm: "default", or "syncbn" for statistics over the batches of all processes
            together.
        bn_momentum: for every batch norm, in Keras' sense.
        bn_epsilon: for every batch norm.
        weight_init: "fan_out" or "fan_in", for the convolutions: normal, untruncated, variance
            2/fan (He et al. 2015, arXiv:1502.01852).
        zero_gamma: True sets the last gamma of each block to 0, so that blocks start as their
            shortcuts (Goyal et al. 2017, arXiv:1706.02677).
        se_ratio: units of squeeze-and-excitation as a fraction of the block's output filters; 1/16
            for timm's weights. None: 16 in all blocks, as in NVIDIA's.
        mean: per channel, in 0-255.
        std: per channel, in 0-255.
        padding: "symmetric" (default) as in PyTorch, or "same" as in TensorFlow.
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
    padding = "symmetric" if padding is None else padding
    catalog.check_image_size(arch, image_size)
    check_options(num_classes, dropout, stochastic_depth, activation, batch_norm, padding)
    check_data_format(data_format)
    initializers.check_mode(weight_init)
    if se_ratio is not None:
        arch = _with_ratio(arch, se_ratio)

    parts = _Parts(
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

    x = _pool(_stem(parts.arrange(x), arch, parts), arch, parts)
    for block in catalog.resnet_blocks(arch):
        x = _block(x, block, stochastic_depth * block.drop_position, zero_gamma, parts)

    x = parts.mean(x, "avgpool")
    if dropout > 0:
        x = layers.Dropout(dropout, seed=layer_seed(seed, "dropout"), name="dropout")(x)
    logits = layers.Dense(
        num_classes,
        dtype="float32",  # a 16-bit loss is too coarse, whatever the policy
        name="fc",
        **_linear_weights(x.shape[-1], seed, "fc"),
    )(x)
    return keras.Model(images, logits, name=arch.name.replace("-", "_"))


def _stem(x: Any, arch: catalog.Arch, parts: _Parts) -> Any:
    if arch.deep:
        for number, stride in ((0, 2), (3, 1)):
            x = parts.conv(x, arch.stem_filters // 2, f"conv1_{number}", kernel=3, stride=stride)
            x = parts.norm(x, f"conv1_{number + 1}", act=True)
        x = parts.conv(x, arch.stem_filters, "conv1_6", kernel=3)
    else:
        x = parts.conv(x, arch.stem_filters, "conv1", kernel=7, stride=2)
    return parts.norm(x, "bn1", act=True)


def _pool(x: Any, arch: catalog.Arch, parts: _Parts) -> Any:
    if arch.conv_pool:
        x = parts.conv(x, arch.stem_filters, "maxpool_0", kernel=3, stride=2)
        return parts.norm(x, "maxpool_1", act=True)
    # PyTorch pads with minus infinity. After ReLU, a zero is equivalent, since every window has a
    # pixel of the image and none is below zero. With an activation that goes below zero, the zeros
    # do affect the outermost maxima.
    padding, layout = "same", {"data_format": parts.data_format}
    if parts.padding == "symmetric":
        x, padding = layers.ZeroPadding2D(1, **layout, name="maxpool_pad")(x), "valid"
    return layers.MaxPooling2D(3, 2, padding=padding, **layout, name="maxpool")(x)


def _block(
    inputs: Any, block: catalog.ResidualBlock, drop_rate: float, zero_gamma: bool, parts: _Parts
) -> Any:
    """Builds convolutions, squeeze-and-excitation if present, the shortcut's sum, activation."""
    name = block.name
    convs = (  # filters, kernel, stride, groups
        ((block.width, 1, 1, 1), (block.width, 3, block.stride, block.groups))
        if block.bottleneck
        else ((block.width, 3, block.stride, 1),)
    )
    x, shortcut = Fork(name=f"{name}_fork")(inputs)
    for number, (filters, kernel, stride, groups) in enumerate(convs, start=1):
        x = parts.conv(x, filters, f"{name}_conv{number}", kernel, stride, groups)
        x = parts.norm(x, f"{name}_bn{number}", act=True)
    last = len(convs) + 1
    x = parts.conv(x, block.filters_out, f"{name}_conv{last}", 1 if block.bottleneck else 3)
    if block.has_projection:
        stride = block.stride
        if block.averages and stride > 1:
            shortcut, stride = _mean_pool(shortcut, f"{name}_downsample_pool", parts), 1
        shortcut = parts.conv(shortcut, block.filters_out, f"{name}_downsample_conv", stride=stride)
        shortcut = parts.norm(shortcut, f"{name}_downsample_bn")
    norm, gamma = f"{name}_bn{last}", "zeros" if zero_gamma else "ones"
    if not block.squeeze_units and drop_rate == 0:
        return parts.norm([x, shortcut], norm, act=True, gamma=gamma)

    x = parts.norm(x, norm, gamma=gamma)
    if block.squeeze_units:
        x, gate = parts.squeeze(x, f"{name}_se_squeeze")
        gate = parts.linear(gate, block.squeeze_units, f"{name}_se_reduce")
        gate = parts.act(gate, f"{name}_se_act")
        gate = parts.linear(gate, block.filters_out, f"{name}_se_expand")
        gate = layers.Activation("sigmoid", name=f"{name}_se_gate")(gate)
        x = Excite(name=f"{name}_se_excite")([x, gate])
    if drop_rate > 0:
        seed = layer_seed(parts.seed, f"{name}_drop")
        x = StochasticDepth(drop_rate, seed=seed, name=f"{name}_drop")(x)
    return parts.act(layers.Add(name=f"{name}_add")([x, shortcut]), f"{name}_act{last}")


def _mean_pool(x: Any, name: str, parts: _Parts) -> Any:
    # "same" excludes padding from the means, like PyTorch's count_include_pad=False.
    layout = parts.data_format
    return layers.AveragePooling2D(2, 2, padding="same", data_format=layout, name=name)(x)


def _with_ratio(arch: catalog.Arch, se_ratio: float) -> catalog.Arch:
    if not (arch.squeeze_units or arch.se_ratio):
        raise ValueError(f"{arch.name} has no squeeze-and-excitation: leave se_ratio out.")
    if not 0 < se_ratio <= 1:
        raise ValueError(f"se_ratio must be in (0, 1], not {se_ratio!r}.")
    return dataclasses.replace(arch, se_ratio=se_ratio)
