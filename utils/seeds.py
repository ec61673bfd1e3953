"""Folds seeds of any size to 32 bits, for random number generators that need this."""

from __future__ import annotations

import hashlib

LEAST, LARGEST = -(2**63), 2**64 - 1
"""Range that `fold_seed` accepts: any number of 64 bits, signed or not."""


def fold_seed(seed: int) -> int:
    """Converts a seed to 32 bits, which Keras and NumPy's older generators need.

    Numbers of 32 bits do not change. Others are hashed, so that seeds that differ in any bit, such
    as job numbers containing a time, give different streams.

    Raises:
        ValueError: it has more than 64 bits.

    Example:
        >>> fold_seed(7), fold_seed(2**32) == fold_seed(0), fold_seed(-1) == fold_seed(2**64 - 1)
        (7, False, True)
    """
    if not LEAST <= seed <= LARGEST:
        raise ValueError(f"takes a number of 64 bits ({LEAST} to {LARGEST}), not {seed}")
    if 0 <= seed < 2**32:
        return seed
    digest = hashlib.blake2b((seed % 2**64).to_bytes(8, "little"), digest_size=4)
    return int.from_bytes(digest.digest(), "little")
