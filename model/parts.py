"""Makes the layers of one model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
from keras import layers

from convoy.model import initializers
from convoy.model.catalog import Arch
from convoy.model.initializers import layer_seed
from convoy.model.layers import Conv2D, DepthwiseConv2D, FusedBatchNorm, Normalize, Squeeze
from convoy.model.options import NCHW, Options
from convoy.model.stochastic_depth import StochasticDepth
from convoy.model.sync_batch_norm import SyncBatchNorm


@dataclass(frozen=True)
class Parts:
    """Makes the layers of one model.

    Args:
        arch: the architecture, as `apply_options` returns it.
        options: what the caller chose.
    """

    default_padding: ClassVar[str] = "same"

    arch: Arch
    options: Options

    @property
    def data_format(self) -> str:
        """Returns "channels_last" or "channels_first"."""
        return self.options.data_format

    @property
    def axis(self) -> int:
        """Returns the axis of the channels."""
        return 1 if self.data_format == NCHW else -1

    @property
    def padding(self) -> str:
        """Returns "same" or "symmetric"."""
        given = self.options.padding
        return self.default_padding if given is None else given

    def seed(self, name: str) -> int | None:
        """Returns the seed of a layer."""
        return layer_seed(self.options.seed, name)

    def normalised_input(self) -> tuple[Any, Any]:
        """Returns the model's input in NHWC, and its normalised images in the data format."""
        side = None if self.options.any_size else self.arch.resolution
        images = keras.Input((side, side, 3), name="image")
        x = Normalize(self.arch.mean, self.arch.std, name="normalization")(images)
        if self.data_format == NCHW:
            x = layers.Permute((3, 1, 2), name=NCHW)(x)
        return images, x

    def logits(self, x: Any, name: str, **weights: Any) -> Any:
        """Applies the classifier; `weights` are its initialisers."""
        return layers.Dense(
            self.options.num_classes,
            dtype="float32",  # a 16-bit loss is too coarse, whatever the policy
            name=name,
            **weights,
        )(x)

    def dropout(self, x: Any, name: str) -> Any:
        """Applies the model's dropout, if its rate is not 0."""
        rate = self.arch.dropout
        return layers.Dropout(rate, seed=self.seed(name), name=name)(x) if rate > 0 else x

    def drop_branch(self, x: Any, rate: float, name: str) -> Any:
        """Applies stochastic depth, if its rate is not 0."""
        return StochasticDepth(rate, seed=self.seed(name), name=name)(x) if rate > 0 else x

    def mean(self, x: Any, name: str) -> Any:
        """Averages over height and width."""
        return layers.GlobalAveragePooling2D(data_format=self.data_format, name=name)(x)

    def squeeze(self, x: Any, name: str) -> Any:
        """Returns x and its mean over height and width, with sides of 1."""
        return Squeeze(data_format=self.data_format, name=name)(x)

    def conv(
        self, x: Any, filters: int, name: str, kernel: int = 1, stride: int = 1, bias: bool = False
    ) -> Any:
        """Applies a convolution with the model's padding and initial weights."""
        x, padding = self._pad(x, kernel, stride, name)
        return Conv2D(
            filters,
            kernel,
            strides=stride,
            padding=padding,
            data_format=self.data_format,
            use_bias=bias,
            kernel_initializer=initializers.conv_initializer(
                self.options.weight_init, self.seed(name)
            ),
            name=name,
        )(x)

    def depthwise(self, x: Any, name: str, kernel: int, stride: int) -> Any:
        """Applies a depthwise convolution with the model's padding and initial weights."""
        x, padding = self._pad(x, kernel, stride, name)
        return DepthwiseConv2D(
            kernel,
            strides=stride,
            padding=padding,
            data_format=self.data_format,
            use_bias=False,
            depthwise_initializer=initializers.depthwise_initializer(
                self.options.weight_init, self.seed(name)
            ),
            name=name,
        )(x)

    def norm(self, x: Any, name: str, act: bool = False, gamma: str = "ones") -> Any:
        """Applies batch norm, and the activation if `act`.

        In a list of two inputs, the second is a shortcut; see `FusedBatchNorm`.
        """
        kind = SyncBatchNorm if self.options.batch_norm == "syncbn" else FusedBatchNorm
        return kind(
            axis=self.axis,
            momentum=self.arch.bn_momentum,
            epsilon=self.arch.bn_epsilon,
            gamma_initializer=gamma,
            activation=self.arch.activation if act else None,
            name=name,
        )(x)

    def act(self, x: Any, name: str) -> Any:
        """Applies the model's activation."""
        return layers.Activation(self.arch.activation, name=name)(x)

    def _pad(self, x: Any, kernel: int, stride: int, name: str) -> tuple[Any, str]:
        # The two paddings differ only if the stride is greater than 1 and the size is even:
        # TensorFlow then pads less at the top and left. With stride 1 and an odd kernel, "same" is
        # symmetric; 1x1 needs no padding.
        if self.padding == "same" or stride == 1 or kernel == 1:
            return x, "same"
        return layers.ZeroPadding2D(kernel // 2, data_format=self.data_format, name=f"{name}_pad")(
            x
        ), "valid"
