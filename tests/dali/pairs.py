"""Loads the same examples with tf.data and with DALI, and compares them."""

import importlib

import numpy as np

from convoy.dataloader.loader import Loader
from convoy.dataloader.options import InputOptions
from convoy.dataloader.sources.find import find_source

DaliLoader = importlib.import_module("convoy.dataloader.dali").DaliLoader


def options(**changes):
    given = {"image_size": 48, "batch_size": 8, "num_classes": 10, "num_workers": 2}
    return InputOptions(**(given | changes))


def pair(data, training=True, rank=0, world=1, **changes):
    """Returns the tf.data loader and the DALI loader for the same examples."""
    source = find_source(str(data), "train")
    place = {"training": training, "rank": rank, "world": world}
    return [kind(source, options(**changes), **place) for kind in (Loader, DaliLoader)]


def assert_alike(ours, theirs, level=1.0):
    """Asserts equal labels, weights, shapes and dtypes, and similar pixels.

    The mean difference of each image must be below `level` grey levels.
    """
    for one, other in zip(ours, theirs, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
    assert (ours[1] == theirs[1]).all()
    assert (ours[2] == theirs[2]).all()
    difference = np.abs(ours[0].astype(np.float64) - theirs[0])
    assert difference.mean((1, 2, 3)).max() < level
