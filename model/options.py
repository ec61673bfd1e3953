"""What callers may choose about a model, beside its architecture."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from convoy.model import catalog, initializers

# explicit: a keras.json may set either as the default
NHWC, NCHW = "channels_last", "channels_first"

# These replace the architecture's values.
_OF_ARCH = (
    "dropout",
    "stochastic_depth",
    "activation",
    "bn_momentum",
    "bn_epsilon",
    "mean",
    "std",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of models of all families. None means the architecture's own value.

    Attributes:
        num_classes: number of logits.
        image_size: height and width in pixels.
        dropout: rate before the classifier.
        stochastic_depth: rate r; block i of N is dropped with probability r*i/N, i from 0.
        activation: any of Keras' names, also inside squeeze-and-excitation (its gate is a sigmoid).
        batch_norm: "default", or "syncbn" for statistics over the batches of all processes
            together.
        bn_momentum: for every batch norm, in Keras' sense.
        bn_epsilon: for every batch norm.
        weight_init: "fan_out" or "fan_in". EfficientNet: see `model.initializers`; ResNet: for the
            convolutions: normal, untruncated, variance 2/fan (He et al. 2015, arXiv:1502.01852).
        mean: per channel, in 0-255.
        std: per channel, in 0-255.
        padding: "same" as in TensorFlow and in the paper's code (EfficientNet's default), or
            "symmetric" as in PyTorch (ResNet's).
        seed: seed of initial weights and dropout; every layer derives its own from it. None:
            random.
        any_size: accept images of any size, not only of `image_size`.
        data_format: "channels_first" computes in NCHW after the normalisation. Input, weights and
            their names do not change; without a GPU it runs only if XLA compiles the whole model.
    """

    num_classes: int = 1000
    image_size: int | None = None
    dropout: float | None = None
    stochastic_depth: float | None = None
    activation: str | None = None
    batch_norm: str = "default"
    bn_momentum: float | None = None
    bn_epsilon: float | None = None
    weight_init: str = "fan_out"
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    padding: str | None = None
    seed: int | None = None
    any_size: bool = False
    data_format: str = NHWC


@dataclass(frozen=True, kw_only=True)
class ResNetOptions(Options):
    """The options of ResNets.

    Attributes:
        zero_gamma: True sets the last gamma of each block to 0, so that blocks start as their
            shortcuts (Goyal et al. 2017, arXiv:1706.02677).
        se_ratio: units of squeeze-and-excitation as a fraction of the block's output filters; 1/16
            for timm's weights. None: 16 in all blocks, as in NVIDIA's.
    """

    zero_gamma: bool = False
    se_ratio: float | None = None


def apply_options(options: Options, arch: catalog.Arch) -> catalog.Arch:
    """Checks the options, and returns `arch` with their values in place of its own.

    Raises:
        ValueError: an option is out of range or unknown.
    """
    values = {name: getattr(options, name) for name in _OF_ARCH} | {
        "resolution": options.image_size
    }
    arch = dataclasses.replace(arch, **{k: v for k, v in values.items() if v is not None})
    catalog.check_image_size(arch, arch.resolution)
    _check(options, arch)
    return arch


def _check(options: Options, arch: catalog.Arch) -> None:
    count = options.num_classes
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"num_classes must be a whole number from 1 up, not {count!r}.")
    for name in ("dropout", "stochastic_depth"):
        rate = getattr(arch, name)
        if not 0 <= rate < 1:
            raise ValueError(f"{name} must be in [0, 1), not {rate!r}.")
    if options.batch_norm not in ("default", "syncbn"):
        raise ValueError(f"batch_norm must be 'syncbn' or 'default', not {options.batch_norm!r}.")
    if options.padding not in (None, "same", "symmetric"):
        raise ValueError(f"padding must be 'same' or 'symmetric', not {options.padding!r}.")
    try:
        keras.activations.get(arch.activation)
    except ValueError:
        raise ValueError(
            f"activation {arch.activation!r} is not one Keras knows, such as swish, relu or"
            " hard_swish."
        ) from None
    if options.data_format not in (NHWC, NCHW):
        raise ValueError(f"data_format must be {NHWC!r} or {NCHW!r}, not {options.data_format!r}.")
    initializers.check_mode(options.weight_init)
