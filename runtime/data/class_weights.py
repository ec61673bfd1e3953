"""Computes `--class_weights`: how much each class's examples count in the training loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from convoy.dataloader.data_loader import DataLoader
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.settings_file import read_settings
from convoy.utils.distributed import ranks
from convoy.utils.errors import ConfigError
from convoy.utils.optional import known
from convoy.utils.text import TextError, canonical, some

if TYPE_CHECKING:
    from convoy.dataloader.sources.source import Source

_WORDS = ("none", "balanced")
_LIKE = "weights of classes, which are lines such as `cat: 2.0`"


def class_weights(config: Config, data: DataLoader) -> np.ndarray | None:
    """Returns the weight of each class, float32 `(classes,)`; None: all count equally.

    All ranks must call it.

    The weights are divided by their mean over the training examples, so that the learning rate
    keeps its meaning, and losses can be compared.

    Args:
        config: the flags.
        data: the training loader.

    Raises:
        ConfigError: the file cannot be read or names an unknown class, or a weight is not a number
            from 0 up.
    """
    if config.class_weights == "none":
        return None
    counts = _counts(ranks.on_rank0(known(data.source).all_labels), data.num_classes)
    if config.class_weights == "balanced":
        weights = np.divide(1.0, counts, out=np.zeros_like(counts), where=counts > 0)
    else:
        given = (config.class_weights, data.class_names, data.num_classes)
        weights = ranks.on_rank0(lambda: _of_file(*given))
    _refuse_nothing(config.class_weights, weights, counts)
    return (weights * counts.sum() / (weights @ counts)).astype(np.float32)


def changed_weights(
    before: Sequence[float] | None, now: np.ndarray | None, names: Sequence[str] | None
) -> str:
    """Returns a line about classes whose weight differs from that before a resume; "" if none.

    Args:
        before: weights of the run so far; None if it had none, or does not say.
        now: weights of this launch.
        names: the classes'.
    """
    if before is None or now is None or len(before) != len(now):
        return ""
    other = [
        f"{names[i] if names else i} {now[i]:g} instead of {before[i]:g}"
        for i in range(len(now))
        if before[i] != now[i]
    ]
    return (
        f"WARNING: --class_weights means other weights, over their mean: {some(other)}"
        if other
        else ""
    )


def check_class_weights(config: Config) -> None:
    """Rejects a malformed file of weights, and two corrections for the same imbalance.

    It runs before the data are read.

    Raises:
        ConfigError: one of these is the case.
    """
    if config.class_weights == "balanced" and config.sampling != "natural":
        raise ConfigError(
            f"--class_weights balanced and --sampling {config.sampling} would both make up for"
            " classes of unequal size: leave one of them out"
        )
    if config.class_weights not in _WORDS:
        _read(config.class_weights)


def check_classes_weighted(config: Config, source: Source) -> None:
    """Rejects a file that does not fit the training split, as far as known without records.

    Raises:
        ConfigError: it names an unknown class, or no image would count.
    """
    classes = max(config.num_classes or 0, source.num_classes or 0)
    if config.class_weights in _WORDS or not classes:
        return
    weights = _of_file(config.class_weights, source.class_names, classes)
    if source.labels is not None:
        _refuse_nothing(config.class_weights, weights, _counts(source.labels, classes))


def _counts(labels: np.ndarray, classes: int) -> np.ndarray:
    """Counts the examples of each class, float64 `(classes,)`."""
    return np.bincount(labels[labels >= 0], minlength=classes).astype(np.float64)


def _refuse_nothing(setting: str, weights: np.ndarray, counts: np.ndarray) -> None:
    if weights @ counts <= 0:
        raise ConfigError(
            f"--class_weights {setting}: every class that has images has the weight 0"
        )


def _of_file(path: str, class_names: Sequence[str] | None, classes: int) -> np.ndarray:
    """Returns weights by name, float64 `(classes,)`; classes missing in the file get 1."""
    names = class_names or [str(i) for i in range(classes)]
    places = {canonical(name): i for i, name in enumerate(names)}
    weights = np.ones(classes)
    for name, (weight, line) in _read(path).items():
        if canonical(name) not in places:
            text = f"there is no class {name!r}; there are {some(names, 10)}"
            raise ConfigError(f"--class_weights {path}, line {line}: {text}")
        weights[places[canonical(name)]] = weight
    return weights


def _read(path: str) -> dict[str, tuple[float, int]]:
    """Returns the weight and its line, by name."""
    what, found = f"--class_weights {path}", {}
    try:
        settings = read_settings(path, like=_LIKE, any_name=True)
    except OSError as error:
        reason = error.strerror or error
        text = f"{what} cannot be read ({reason}): give none, balanced, or a file"
        raise ConfigError(text) from error
    except (ConfigError, TextError) as error:
        raise ConfigError(f"--class_weights {error}") from error
    if not settings:
        raise ConfigError(f"{what} holds no {_LIKE}")
    for name, setting in settings.items():
        try:
            weight = float(setting.value)
        except (TypeError, ValueError):
            weight = -1.0
        if not 0 <= weight < np.inf:
            text = f"the weight of {name!r} must be a number of at least 0"
            raise ConfigError(f"{what}, line {setting.line}: {text}")
        found[name] = weight, setting.line
    return found
