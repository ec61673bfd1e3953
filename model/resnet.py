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
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from convoy.model import catalog
from convoy.model.initializers import layer_seed
from convoy.model.layers import Conv2D, Excite, Fork
from convoy.model.options import NCHW, NHWC, ResNetOptions, apply_options
from convoy.model.parts import Parts

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
    """Makes layers with PyTorch's padding and initial weights, and with groups."""

    default_padding = "symmetric"

    def conv(
        self, x: Any, filters: int, name: str, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> Any:
        x, padding = self._pad(x, kernel, stride, name)
        kind = Conv2D if groups == 1 else GroupedConv2D
        # With groups, the fans are k*k*in/groups and k*k*out, as in PyTorch.
        initializer = keras.initializers.VarianceScaling(
            2.0, self.options.weight_init, "untruncated_normal", seed=self.seed(name)
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
            **_linear_weights(x.shape[self.axis], self.options.seed, name),
        )(x)


def _linear_weights(fan_in: int, seed: int | None, name: str) -> dict[str, Any]:
    """Returns U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for kernel and bias, as for PyTorch's Linear."""
    bound = 1 / math.sqrt(fan_in)
    return {
        part: keras.initializers.RandomUniform(-bound, bound, layer_seed(seed, f"{name}/{part}"))
        for part in ("kernel_initializer", "bias_initializer")
    }


def build(arch: catalog.Arch, options: ResNetOptions) -> keras.Model:
    """Builds a ResNet under the current Keras dtype policy.

    Args:
        arch: an entry of `model.catalog` of family "resnet".
        options: what the caller chose.

    Returns:
        A functional model from images `(batch, image_size, image_size, 3)`, uint8 or float in
        0-255, to float32 logits `(batch, num_classes)`.

    Raises:
        ValueError: an option is out of range or unknown.
    """
    arch = apply_options(options, arch)
    if options.se_ratio is not None:
        arch = _with_ratio(arch, options.se_ratio)
    parts = _Parts(arch, options)
    images, x = parts.normalised_input()

    x = _pool(_stem(x, parts), parts)
    for block in catalog.resnet_blocks(arch):
        x = _block(x, block, options.zero_gamma, parts)

    x = parts.mean(x, "avgpool")
    x = parts.dropout(x, "dropout")
    logits = parts.logits(x, "fc", **_linear_weights(x.shape[-1], options.seed, "fc"))
    return keras.Model(images, logits, name=arch.name.replace("-", "_"))


def _stem(x: Any, parts: _Parts) -> Any:
    arch = parts.arch
    if arch.deep:
        for number, stride in ((0, 2), (3, 1)):
            x = parts.conv(x, arch.stem_filters // 2, f"conv1_{number}", kernel=3, stride=stride)
            x = parts.norm(x, f"conv1_{number + 1}", act=True)
        x = parts.conv(x, arch.stem_filters, "conv1_6", kernel=3)
    else:
        x = parts.conv(x, arch.stem_filters, "conv1", kernel=7, stride=2)
    return parts.norm(x, "bn1", act=True)


def _pool(x: Any, parts: _Parts) -> Any:
    if parts.arch.conv_pool:
        x = parts.conv(x, parts.arch.stem_filters, "maxpool_0", kernel=3, stride=2)
        return parts.norm(x, "maxpool_1", act=True)
    # PyTorch pads with minus infinity. After ReLU, a zero is equivalent, since every window has a
    # pixel of the image and none is below zero. With an activation that goes below zero, the zeros
    # do affect the outermost maxima.
    padding, layout = "same", {"data_format": parts.data_format}
    if parts.padding == "symmetric":
        x, padding = layers.ZeroPadding2D(1, **layout, name="maxpool_pad")(x), "valid"
    return layers.MaxPooling2D(3, 2, padding=padding, **layout, name="maxpool")(x)


def _block(inputs: Any, block: catalog.ResidualBlock, zero_gamma: bool, parts: _Parts) -> Any:
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
    drop_rate = parts.arch.stochastic_depth * block.drop_position
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
    x = parts.drop_branch(x, drop_rate, f"{name}_drop")
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
