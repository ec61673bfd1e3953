"""Assigns each variable of a model a depth, for learning rates that decrease with the depth."""

from __future__ import annotations

from typing import Any

import keras

from convoy.model.catalog import BLOCK, HEADS

_TOP = ("top_conv", "top_bn")


def depth_from_top(model: keras.Model) -> dict[str, int]:
    """Returns each variable's group number, counted from the classifier down, by Keras path.

    The groups, from the bottom up, are the stem (with its norm), each block in turn, and the
    classifier. EfficientNet's last convolution and its norm belong to the last block. This is
    timm's assignment (`param_groups_layer_decay` with the models' own `group_matcher`), after
    BEiT's (Bao et al. 2021, arXiv:2106.08254), whose groups are the embedding, each block and the
    head.

    Returns:
        0 for the classifier, 1 for the last block, and so on to the stem; also for running
        statistics.
    """
    groups: dict[str, int] = {}  # group name -> number from the bottom, in model order
    found: dict[str, int] = {}
    for variable in model.weights:
        found[variable.path] = groups.setdefault(_group(variable, groups), len(groups))
    last = len(groups) - 1
    return {path: last - number for path, number in found.items()}


def _group(variable: Any, seen: dict[str, int]) -> str:
    layer = variable.path.rsplit("/", 1)[0]
    block = BLOCK.match(layer)
    if block:
        return block.group(1)
    if layer in _TOP:
        return list(seen)[-1]
    return "head" if layer in HEADS.values() else "stem"
