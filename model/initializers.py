"""Makes initial weights of convolutions and classifiers.

Every function returns a fresh Keras initialiser, so that layers never share a seed by accident.
`seed=None` draws one from Python's `random`, which `keras.utils.set_random_seed` controls.
"""

from __future__ import annotations

import hashlib

import keras

MODES = ("fan_in", "fan_out")


def layer_seed(seed: int | None, name: str) -> int | None:
    """Returns a layer's 31-bit seed: the same in every process, different for every layer."""
    if seed is None:
        return None
    digest = hashlib.blake2s(f"{seed}/{name}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") >> 1


def check_mode(mode: str) -> None:
    """Raises ValueError unless `mode` is "fan_in" or "fan_out"."""
    if mode not in MODES:
        raise ValueError(f"weight_init must be one of {', '.join(MODES)}, not {mode!r}.")


def conv_initializer(mode: str, seed: int | None = None) -> keras.initializers.Initializer:
    """Returns a truncated normal with variance 2/fan (He et al. 2015, arXiv:1502.01852)."""
    check_mode(mode)
    return keras.initializers.VarianceScaling(2.0, mode, "truncated_normal", seed=seed)


def depthwise_initializer(mode: str, seed: int | None = None) -> keras.initializers.Initializer:
    """Returns a truncated normal of variance 2/k^2 for kernels (k, k, channels, 1), in both modes.

    An output of a depthwise convolution sees k*k inputs and an input feeds k*k outputs, so both
    fans are k*k. Keras reads the kernel's shape as (k, k, in, out), so its fan_in is k*k*channels,
    which would make these weights too small by sqrt(channels); its fan_out is k*k*1, as needed.
    """
    check_mode(mode)
    return keras.initializers.VarianceScaling(2.0, "fan_out", "truncated_normal", seed=seed)


def dense_initializer(mode: str, seed: int | None = None) -> keras.initializers.Initializer:
    """Returns U(-1/sqrt(fan), 1/sqrt(fan)), with variance 1/(3*fan), for the classifier."""
    check_mode(mode)
    return keras.initializers.VarianceScaling(1.0 / 3.0, mode, "uniform", seed=seed)
