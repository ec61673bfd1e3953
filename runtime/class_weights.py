"""`--class_weights`: how much the examples of each class count in the training loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from convoy.runtime.config import Config, ConfigError
from convoy.runtime.settings_file import read_settings
from convoy.utils import distributed
from convoy.utils.text import TextError, canonical, some


def class_weights(config: Config, data: Any) -> np.ndarray | None:
    """The weight of each class, float32 `(classes,)`; None: all count alike. For every rank.

    They are divided by their mean over the training examples, so that the learning rate means what
    it did, and losses can be compared.

    Args:
        data: the training loader.

    Raises:
        ConfigError: the file cannot be read, names a class that is not there, or a weight is no
            number from 0 on.
    """
    if config.class_weights == "none":
        return None
    labels = distributed.on_rank0(data.source.all_labels)
    counts = np.bincount(labels[labels >= 0], minlength=data.num_classes).astype(np.float64)
    if config.class_weights == "balanced":
        weights = np.divide(1.0, counts, out=np.zeros_like(counts), where=counts > 0)
    else:
        weights = distributed.on_rank0(lambda: _of_file(config.class_weights, data))
    total = float(weights @ counts)
    if total <= 0:
        raise ConfigError(f"--class_weights {config.class_weights}: no class that occurs counts")
    return (weights * counts.sum() / total).astype(np.float32)


def check_class_weights(config: Config) -> None:
    """Refuses a file that is not one of names and weights, before the data are looked at.

    Raises:
        ConfigError: it is not.
    """
    if config.class_weights not in ("none", "balanced"):
        _read(config.class_weights)


def _of_file(path: str, data: Any) -> np.ndarray:
    """Weights by name; those that the file does not name have 1."""
    names = data.class_names or [str(i) for i in range(data.num_classes)]
    places, weights = (
        {canonical(name): i for i, name in enumerate(names)},
        np.ones(data.num_classes),
    )
    for name, (weight, line) in _read(path).items():
        if canonical(name) not in places:
            text = f"there is no class {name!r}; there are {some(names, 10)}"
            raise ConfigError(f"--class_weights {path}, line {line}: {text}")
        weights[places[canonical(name)]] = weight
    return weights


def _read(path: str) -> dict[str, tuple[float, int]]:
    """By name, the weight and its line."""
    what, found = f"--class_weights {path}", {}
    try:
        settings = read_settings(path)
    except OSError as error:
        reason = error.strerror or error
        text = f"{what} cannot be read ({reason}): give none, balanced, or a file"
        raise ConfigError(text) from error
    except TextError as error:
        raise ConfigError(str(error)) from error
    for name, setting in settings.items():
        try:
            weight = float(setting.value)
        except (TypeError, ValueError):
            weight = -1.0
        if not 0 <= weight < np.inf:
            text = f"the weight of {name!r} must be a number from 0 on"
            raise ConfigError(f"{what}, line {setting.line}: {text}")
        found[name] = weight, setting.line
    return found
