"""Computes the global order of an epoch, and each rank's share of it.

Everything here is a pure function of (seed, epoch, position), so a run can enter an epoch
anywhere, on any number of ranks, without replaying earlier steps. Orders come from the raw output
of a counter-based generator (Philox, Salmon et al. 2011) and a stable sort: NumPy guarantees the
raw stream forever, but not that of `Generator.permutation`.
"""

from __future__ import annotations

import operator
from collections import OrderedDict
from typing import NamedTuple, Protocol

import numpy as np

BLOCK = 64
WINDOW_BLOCKS = 256


def permutation(size: int, seed: int, epoch: int, stream: int) -> np.ndarray:
    """Returns a permutation of `size` numbers; it depends only on the arguments."""
    key = np.array([seed % 2**64, ((epoch % 2**32) << 32) | stream], np.uint64)
    return np.argsort(np.random.Philox(key=key).random_raw(size), kind="stable")


class Drawn(NamedTuple):
    """The examples at some positions of an epoch: int64 arrays of one shape.

    Attributes:
        examples: the examples' numbers.
        times: how many times each was seen before: if an epoch has every example once, the epoch.
    """

    examples: np.ndarray
    times: np.ndarray


class Order(Protocol):
    """The order of one epoch."""

    def at(self, positions: np.ndarray) -> Drawn:
        """Returns the examples at these positions."""
        ...


class Sampler(Protocol):
    """Makes an order for each epoch."""

    def order(self, epoch: int) -> Order:
        """Returns the order of an epoch."""
        ...


class EpochOrder:
    """A block-shuffled permutation of `num_examples`, computed only at requested positions.

    Blocks of `block` neighbouring examples are permuted over the whole set; then single examples
    are permuted within windows of `window_blocks` blocks. So disk reads close in time stay close on
    the disk, while a window mixes examples from the whole set. Sets that fit into one window get a
    plain permutation.

    Example:
        >>> sorted(EpochOrder(5, seed=0, epoch=0)[np.arange(5)].tolist())
        [0, 1, 2, 3, 4]
    """

    def __init__(
        self,
        num_examples: int,
        seed: int,
        epoch: int,
        block: int = BLOCK,
        window_blocks: int = WINDOW_BLOCKS,
    ):
        if num_examples < 1 or block < 1 or window_blocks < 1:
            raise ValueError("num_examples, block and window_blocks must be at least 1.")
        self.num_examples = num_examples
        self._seed, self._epoch, self._block = seed, epoch, block
        self._window_blocks = window_blocks
        blocks = -(-num_examples // block)
        if blocks <= window_blocks:
            # with one window, its own permutation is already global
            self._blocks = np.arange(blocks)
        else:
            self._blocks = permutation(blocks, seed, epoch, 0)
        sizes = np.minimum(block, num_examples - self._blocks * block)
        self._starts = np.concatenate([[0], np.cumsum(sizes)])[:-1:window_blocks]
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()

    def __len__(self) -> int:
        return self.num_examples

    def __getitem__(self, positions: int | np.ndarray) -> np.ndarray:
        """Returns the example numbers at these positions: int64, in the shape of `positions`.

        Raises:
            IndexError: a position is outside [0, num_examples).
        """
        positions = np.asarray(positions, np.int64)
        if positions.size and not 0 <= positions.min() <= positions.max() < self.num_examples:
            raise IndexError(f"position outside [0, {self.num_examples})")
        windows = np.searchsorted(self._starts, positions, side="right") - 1
        result = np.empty(positions.shape, np.int64)
        for window in np.unique(windows):
            here = windows == window
            result[here] = self._window(int(window))[positions[here] - self._starts[window]]
        return result

    def at(self, positions: np.ndarray) -> Drawn:
        """Returns the examples at these positions."""
        return Drawn(self[positions], np.full_like(positions, self._epoch))

    def _window(self, window: int) -> np.ndarray:
        if window in self._cache:
            self._cache.move_to_end(window)
            return self._cache[window]
        first = window * self._window_blocks
        blocks = self._blocks[first : first + self._window_blocks]
        members: np.ndarray = (blocks[:, None] * self._block + np.arange(self._block)).ravel()
        members = members[members < self.num_examples]
        members = members[permutation(len(members), self._seed, self._epoch, 1 + window)]
        self._cache[window] = members
        if len(self._cache) > 2:  # a batch touches at most two neighbours, unless it is huge
            self._cache.popitem(last=False)
        return members


class Slots:
    """Computes one rank's batches as (example number, data epoch, weight) per slot.

    By default an epoch has every example once, in `ceil(N / global_batch)` steps. The slots past
    the end repeat examples of the same epoch with weight 0, so that batch norm sees real images and
    nothing counts twice. With `steps_per_epoch` the epochs' orders are joined instead: slot `s` of
    the whole run holds position `s % N` of data epoch `s // N`, with weight 1.

    Rank `r` of `n` takes every `n`-th slot from `r` on, so the global batch is the same for any
    number of ranks. Not thread-safe.

    Args:
        num_examples: examples in the whole set (all ranks).
        global_batch: slots per step over all ranks; a multiple of `world`.
        steps_per_epoch: None uses every example once.
        shuffle: False gives file order (evaluation).
        block: neighbours that stay together in the coarse shuffle; 1 if reading neighbours together
            gains nothing.
        sampler: makes the epochs' orders in place of the shuffle, each as long as the set.
    """

    def __init__(
        self,
        num_examples: int,
        global_batch: int,
        steps_per_epoch: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world: int = 1,
        block: int = BLOCK,
        sampler: Sampler | None = None,
    ):
        if num_examples < 1:
            raise ValueError("num_examples must be at least 1.")
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} is not one of {world} ranks.")
        if global_batch < 1 or global_batch % world:
            raise ValueError(f"global_batch {global_batch} is not a multiple of {world} ranks.")
        if steps_per_epoch is not None and steps_per_epoch < 1:
            raise ValueError(f"--steps_per_epoch must be at least 1, got {steps_per_epoch}.")
        self.num_examples, self.global_batch = num_examples, global_batch
        self.rank, self.world = rank, world
        self.batch_size = global_batch // world
        self.steps_per_epoch = steps_per_epoch or -(-num_examples // global_batch)
        self._continued = steps_per_epoch is not None
        self._seed, self._shuffle, self._block = seed, shuffle, block
        self._sampler = sampler
        self._orders: OrderedDict[int, Order] = OrderedDict()

    @property
    def epoch_length(self) -> int:
        """Returns the slots of one epoch that count, over all ranks: the largest offset."""
        return self.steps_per_epoch * self.global_batch if self._continued else self.num_examples

    def steps_from(self, offset: int) -> int:
        """Returns the steps left in an epoch after `offset` slots (over all ranks)."""
        return max(0, -(-(self.epoch_length - offset) // self.global_batch))

    def batch(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns this rank's batch of one step of the epoch; see `batch_at`."""
        return self.batch_at(epoch, operator.index(step) * self.global_batch)

    def batch_at(self, epoch: int, offset: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns this rank's batch after `offset` slots of `epoch` are done over all ranks.

        `offset` need not be a multiple of the global batch: a run may continue with another batch
        size.

        Returns:
            int64 `(B,)` example numbers; int64 `(B,)`, how often each was seen before (the data
            epoch, if all are seen equally often); float32 `(B,)` weights in {0, 1}.

        Raises:
            ValueError: a negative epoch, or an offset outside the epoch.
        """
        if epoch < 0 or not 0 <= offset < self.epoch_length:
            raise ValueError(f"no batch at epoch {epoch}, offset {offset} of {self.epoch_length}.")
        places = offset + self.rank + self.world * np.arange(self.batch_size, dtype=np.int64)
        weights = (places < self.epoch_length).astype(np.float32)
        if self._continued:
            slots = epoch * self.epoch_length + places
            data_epochs, positions = np.divmod(slots, self.num_examples)
        else:
            data_epochs, positions = np.full_like(places, epoch), places % self.num_examples
        if not self._shuffle:
            return positions, data_epochs, weights
        indices, times = np.empty_like(positions), np.empty_like(positions)
        for data_epoch in np.unique(data_epochs):
            here = data_epochs == data_epoch
            indices[here], times[here] = self._order(int(data_epoch)).at(positions[here])
        return indices, times, weights

    def _order(self, epoch: int) -> Order:
        if epoch not in self._orders:
            if self._sampler is not None:
                self._orders[epoch] = self._sampler.order(epoch)
            else:
                self._orders[epoch] = EpochOrder(self.num_examples, self._seed, epoch, self._block)
            if len(self._orders) > 2:
                self._orders.popitem(last=False)
        return self._orders[epoch]


def _mix(value: np.ndarray) -> np.ndarray:
    """Applies the output function of splitmix64 (Steele et al. 2014); a bijection of 64 bits."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def example_seeds(
    seed: int, data_epoch: np.ndarray, index: np.ndarray, stream: int = 0
) -> np.ndarray:
    """Returns seeds for stateless ops, one pair per example.

    Args:
        seed: the run's seed.
        data_epoch: int `(B,)`.
        index: int `(B,)`, global example numbers.
        stream: a different number gives independent seeds (crop, augmentation, mixing).

    Returns:
        int32 `(B, 2)`; depends only on the four arguments.
    """
    golden = 0x9E3779B97F4A7C15
    state = np.array([(seed * golden + stream + 1) % 2**64], np.uint64)
    for part in (data_epoch, index):
        part = np.atleast_1d(np.asarray(part, np.int64)).astype(np.uint64)
        state = _mix((state ^ part) + np.uint64(golden))
    return state.astype("<u8").view("<i4").reshape(-1, 2).astype(np.int32)
