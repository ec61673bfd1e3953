"""Builds models from a `Config`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import keras

from convoy.model import build_model
from convoy.model.catalog import get_arch
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.images import image_size, train_image_size

logger = logging.getLogger("convoy.data")

# ImageNet's number, for synthetic images.
DEFAULT_CLASSES = 1000
# Stored in checkpoints, so that a later change of a default does not change an old model.
DEFAULT_PADDING = {"efficientnet": "same", "resnet": "symmetric"}


def final_dropout(config: Config) -> float:
    """Returns the dropout rate before the head; with progressive training, in the last stage."""
    return get_arch(config.arch).dropout if config.dropout is None else config.dropout


def model_arguments(
    config: Config, num_classes: int, implied: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Returns the arguments for `build_model`; checkpoints store them to build the model again.

    Args:
        config: the flags.
        num_classes: number of logits.
        implied: arguments that pre-trained weights imply (`model.weights.inspect`). They override
            the architecture's defaults, and explicit flags override them.
    """
    arch = get_arch(config.arch)
    arguments = {
        "arch": arch.name,
        "num_classes": num_classes,
        "image_size": image_size(config),
        "dropout": arch.dropout,
        "stochastic_depth": arch.stochastic_depth,
        "activation": arch.activation,
        "batch_norm": config.batch_norm,
        "bn_momentum": arch.bn_momentum,
        "bn_epsilon": arch.bn_epsilon,
        "weight_init": config.weight_init,
        "padding": DEFAULT_PADDING[arch.family],
        "mean": list(arch.mean),
        "std": list(arch.std),
    }
    if arch.family == "resnet":
        arguments |= {"zero_gamma": config.zero_gamma, "se_ratio": None}
    arguments |= {k: v for k, v in (implied or {}).items() if k in arguments}
    flags = {name: getattr(config, name, None) for name in arguments}
    return (
        arguments
        | {name: value for name, value in flags.items() if value is not None}
        | {"num_classes": num_classes}
    )


def build_training_model(
    config: Config, num_classes: int, arguments: Mapping[str, Any] | None = None
) -> keras.Model:
    """Builds a freshly initialised model: the same on every rank and in every run with one seed."""
    settled = dict(arguments or model_arguments(config, num_classes))
    one_size = config.n_stages == 1 and train_image_size(config) == settled["image_size"]
    settled |= {"seed": config.seed, "any_size": not one_size, "data_format": config.data_format}
    return build_model(settled.pop("arch"), **settled)
