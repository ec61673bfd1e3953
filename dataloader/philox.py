"""Draws stateless random numbers: one example's on the CPU equal a batch's on any device.

Source: Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3" (Philox-4x32, 10 rounds).
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

# tf.random.Algorithm.PHILOX; set explicitly, because the default may differ between devices
_PHILOX = 1


def uniforms(shape: Sequence[int], seed: tf.Tensor) -> tf.Tensor:
    """Returns `tf.random.stateless_uniform(shape, seed, alg="philox")`: float32 in [0, 1).

    That function mixes the seed with about 25 small operations. TensorFlow's own kernel for this
    does it in one, which saves 8 µs per draw. `seed` is int32 (2,).
    """
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
    return tf.raw_ops.StatelessRandomUniformV2(shape=shape, key=key, counter=counter, alg=_PHILOX)


def key_and_counter(seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the start of a seed's stream for `blocks`: uint32 (2,) and (4,).

    The seed is int32 (2,).
    """
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
    return tuple(tf.reshape(tf.bitcast(words, tf.uint32), [-1]) for words in (key, counter))


def bits(shape: tf.Tensor | Sequence[int], seed: tf.Tensor) -> tf.Tensor:
    """Returns random uint32 of the given shape: blocks 0, 1, … of the seed's stream in a row."""
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
    return tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=shape, key=key, counter=counter, alg=_PHILOX, dtype=tf.uint32
    )


def blocks(key: tf.Tensor, counter: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Computes blocks of streams elementwise in integers, so they agree on every device.

    Args:
        key: uint32 (…, 2), broadcasts with the index, as the counter does.
        counter: uint32 (…, 4).
        index: uint32 (…), the block number.

    Returns:
        Four uint32 (…): `bits` numbers 4·index to 4·index + 3.
    """
    xor, (key0, key1) = tf.bitwise.bitwise_xor, tf.unstack(key, axis=-1)
    c0, c1, c2, c3 = tf.unstack(counter, axis=-1)
    c0 = c0 + index
    carry = tf.cast(c0 < index, tf.uint32)
    c1 = c1 + carry
    carry = carry * tf.cast(tf.equal(c1, 0), tf.uint32)
    c2 = c2 + carry
    c3 = c3 + carry * tf.cast(tf.equal(c2, 0), tf.uint32)
    for _ in range(10):
        high0, low0 = _product(c0, 0xD2511F53)
        high1, low1 = _product(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = xor(xor(high1, c1), key0), low1, xor(xor(high0, c3), key1), low0
        key0 = key0 + tf.constant(0x9E3779B9, tf.uint32)
        key1 = key1 + tf.constant(0xBB67AE85, tf.uint32)
    return c0, c1, c2, c3


def _product(values: tf.Tensor, factor: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the upper and the lower 32 bits of uint32 numbers times a constant."""
    product = tf.cast(values, tf.uint64) * tf.constant(factor, tf.uint64)
    high = tf.bitwise.right_shift(product, tf.constant(32, tf.uint64))
    return tf.cast(high, tf.uint32), tf.cast(product, tf.uint32)
