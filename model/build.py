"""Builds a Keras model from an architecture's name.

`.keras` files of our models load in a process that has imported this module, because it registers
all our layers with Keras, and allows models as deep as ours.
"""

from __future__ import annotations

import dataclasses
import difflib
import sys
from typing import Any

import keras

from convoy.model import catalog, efficientnet, resnet
from convoy.model.options import Options, ResNetOptions
from convoy.utils.machine.garbage import without_garbage_collection

# Keras walks a model's graph by recursion, one call for each layer of its longest chain. ResNet-RS
# 420 has 2,100, and Python usually allows 1,000. Exports, reports and loading a file need it too.
sys.setrecursionlimit(max(5000, sys.getrecursionlimit()))


def build_model(
    arch: str, *, num_classes: int = 1000, image_size: int | None = None, **options: Any
) -> keras.Model:
    """Builds the model called `arch` under the current Keras dtype policy.

    Args:
        arch: a name from `model.catalog.list_archs()`.
        num_classes: number of logits.
        image_size: height and width in pixels; None takes the architecture's resolution.
        **options: others of the family, such as `dropout`, `activation`, `weight_init` or `seed`:
            see `model.options`. Defaults come from the catalogue.

    Returns:
        A functional model from images `(batch, image_size, image_size, 3)`, uint8 or float in
        0-255, to float32 logits `(batch, num_classes)`.

    Raises:
        ValueError: the name is unknown or not available, or an argument is out of range.
        TypeError: the family has no such option.
        RuntimeError: Keras does not run on TensorFlow.
    """
    entry = catalog.get_arch(arch)
    catalog.check_available(entry)
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"Keras runs on {keras.backend.backend()!r} here, Convoy needs TensorFlow: set "
            f"KERAS_BACKEND=tensorflow, or change keras.json."
        )
    family, known = (resnet, ResNetOptions) if entry.family == "resnet" else (efficientnet, Options)
    names = [field.name for field in dataclasses.fields(known)]
    for name in options:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {near[0]}?" if near else f" (there are {', '.join(names)})."
            raise TypeError(f"{arch} has no option {name!r}{hint}")
    given = known(num_classes=num_classes, image_size=image_size, **options)
    with without_garbage_collection():
        return family.build(entry, given)
