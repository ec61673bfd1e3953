"""Makes the layers of a block with the settings of one model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras import layers

from convoy.model import initializers
from convoy.model.initializers import layer_seed
from convoy.model.layers import Conv2D, DepthwiseConv2D, FusedBatchNorm, Squeeze
from convoy.model.options import NCHW
from convoy.model.sync_batch_norm import SyncBatchNorm


@dataclass(frozen=True)
class Parts:
    """Makes the layers of a block with the settings of one build."""

    activation: str
    batch_norm: str
    bn_momentum: float
    bn_epsilon: float
    weight_init: str
    padding: str
    data_format: str
    seed: int | None

    @property
    def axis(self) -> int:
        """Returns the axis of the channels."""
        return 1 if self.data_format == NCHW else -1

    def arrange(self, x: Any) -> Any:
        """Converts the input's NHWC to the data format."""
        return layers.Permute((3, 1, 2), name=NCHW)(x) if self.data_format == NCHW else x

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
                self.weight_init, layer_seed(self.seed, name)
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
                self.weight_init, layer_seed(self.seed, name)
            ),
            name=name,
        )(x)

    def norm(self, x: Any, name: str, act: bool = False, gamma: str = "ones") -> Any:
        """Applies batch norm, and the activation if `act`.

        In a list of two inputs, the second is a shortcut; see `FusedBatchNorm`.
        """
        kind = SyncBatchNorm if self.batch_norm == "syncbn" else FusedBatchNorm
        return kind(
            axis=self.axis,
            momentum=self.bn_momentum,
            epsilon=self.bn_epsilon,
            gamma_initializer=gamma,
            activation=self.activation if act else None,
            name=name,
        )(x)

    def act(self, x: Any, name: str) -> Any:
        """Applies the model's activation."""
        return layers.Activation(self.activation, name=name)(x)

    def _pad(self, x: Any, kernel: int, stride: int, name: str) -> tuple[Any, str]:
        # The two paddings differ only if the stride is greater than 1 and the size is even:
        # TensorFlow then pads less at the top and left. With stride 1 and an odd kernel, "same" is
        # symmetric; 1x1 needs no padding.
        if self.padding == "same" or stride == 1 or kernel == 1:
            return x, "same"
        return layers.ZeroPadding2D(kernel // 2, data_format=self.data_format, name=f"{name}_pad")(
            x
        ), "valid"
