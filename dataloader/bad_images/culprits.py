"""Finds the example that made a batch fail, and the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from convoy.dataloader.bad_images.explain import first_words
from convoy.dataloader.errors import DataError
from convoy.dataloader.images.by_pillow import unread
from convoy.dataloader.sources.source import Source

# TensorFlow puts the bytes it could not parse into its message, and Python fails to decode it.
TF_ERRORS = (tf.errors.OpError, UnicodeDecodeError)


def what_is_wrong(
    source: Source, index: int, num_classes: int, decode: Callable[[tf.Tensor], Any]
) -> str | None:
    """Reads and decodes one example by itself. Returns the error's text, or None if it is good.

    Args:
        source: where the example is.
        index: its number there.
        num_classes: number of classes.
        decode: decodes an encoded image as the pipeline does.

    Raises:
        DataError: the label is outside the classes: this is not the fault of one example.
    """
    label = 0 if source.labels is None else source.labels[index]
    encoded = None
    try:
        encoded, label = source.parse(source.read(np.array([index]))[0], label)
        if 0 <= label < num_classes:
            with tf.device("/cpu:0"):
                decode(tf.constant(encoded))
    except DataError as error:
        return str(error)
    except TF_ERRORS as error:
        kind = None if encoded is None else unread(encoded)
        return kind or first_words(error)
    if not 0 <= label < num_classes:
        raise DataError(f"{source.describe(index)}: {source.outside(label, num_classes)}")
    return None
