"""Checks the flags that describe a model, and computes its crop. No TensorFlow."""

from __future__ import annotations

import difflib
import math

from convoy.runtime.settings.config import Config
from convoy.utils.errors import ConfigError

ACTIVATIONS = (
    *("celu", "elu", "exponential", "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu"),
    *("hard_swish", "hard_tanh", "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish"),
    *("relu", "relu6", "selu", "sigmoid", "silu", "soft_shrink", "softmax", "softplus"),
    *("softsign", "sparse_plus", "sparse_sigmoid", "sparsemax", "squareplus", "swish", "tanh"),
    *("tanh_shrink", "threshold"),
)
"""Keras' names; listed here so that a check need not import TensorFlow."""


def check_model(config: Config) -> None:
    """Checks that the architecture can be built for images of this size.

    Raises:
        ConfigError: it cannot, or `--activation` is unknown.
    """
    from convoy.model.catalog import check_image_size, get_arch

    try:
        arch = get_arch(config.arch)
    except ValueError as error:
        raise ConfigError(f"--arch: {error}") from error
    try:
        if config.image_size is not None:
            check_image_size(arch, config.image_size)
    except ValueError as error:
        raise ConfigError(f"--image_size: {error}") from error
    if not arch.available:
        raise ConfigError(f"--arch {config.arch} cannot be built: {arch.reason}")
    if config.activation not in (None, *ACTIVATIONS):
        near = difflib.get_close_matches(str(config.activation), ACTIVATIONS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "such as swish, relu and hard_swish"
        raise ConfigError(
            f"--activation takes one of Keras' names, not {config.activation}: {hint}"
        )


def settle_crop(config: Config) -> Config:
    """Converts `--crop_pct` to `--crop_padding` in pixels, rounded as in timm.

    A run keeps only the padding. A report keeps both, because it may evaluate other image sizes.
    """
    from convoy.model.catalog import get_arch

    if config.crop_pct is None:
        return config
    size = config.image_size or get_arch(config.arch).resolution
    padding = math.floor(size / config.crop_pct) - size
    return config.with_(crop_padding=padding, crop_pct=config.crop_pct if config.report else None)
