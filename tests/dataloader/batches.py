"""Reads the batches of a loader."""

import numpy as np


def collect(loader, epoch=0, offset=0):
    """Returns images, labels and weights of an epoch from `offset` on, all batches joined."""
    batches = [[t.numpy() for t in batch] for batch in loader.batches(epoch, offset)]
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]
