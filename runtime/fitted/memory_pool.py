"""Gives TensorFlow's pool for tensors its size before the first step, so that it wastes less.

With oneDNN, TensorFlow takes tensors of 256 KiB or more from a pool, on CPUs too (`MklCPUAllocator`
and `BFCAllocator` in its source). The pool grows by regions of 1, 2, 4, … MiB and never shrinks. A
tensor must fit into one region. Recomputed blocks make and free wide tensors again and again, and
what is free in each region is soon too small for them. One region for all avoids that.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from convoy.runtime.fitted.foreseen_memory import Foresight, bytes_of_a_number
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flags import batch_number
from convoy.runtime.settings.recomputation import recomputed_blocks
from convoy.utils.machine.garbage import without_garbage_collection
from convoy.utils.machine.gpus import visible_gpus
from convoy.utils.machine.resources import free_memory

_ROOM = 1.4
"""The region's size, as a multiple of what is in use at the peak; B0 and B4 needed 1.37 and 1.47.

TensorFlow rounds it up to a power of two. Memory that is never used costs 1/32 of it.
"""


def reserve_pool(config: Config, model: keras.Model) -> None:
    """Makes the region, if whole blocks are computed again and there is no GPU.

    Takes address space and no memory, apart from the pool's index of it.
    """
    if visible_gpus() > 0 or not recomputed_blocks(config):
        return
    with without_garbage_collection():
        foresight = Foresight(config, model, bytes_of_a_number(), gpu=False)
        batch = batch_number(config.train_batch_size)
        needed = foresight.peak(batch, config.recompute).tensors
    mebibytes = round(min(_ROOM * needed, free_memory())) >> 20
    with tf.device("CPU:0"):  # makes a tensor, writes nothing into it, and frees it
        tf.raw_ops.Empty(shape=(mebibytes, 2**20), dtype=tf.uint8, init=False)
