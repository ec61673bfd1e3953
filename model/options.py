"""Checks the options of a model."""

from __future__ import annotations

import keras

# explicit: a keras.json may set either as the default
NHWC, NCHW = "channels_last", "channels_first"


def check_options(
    num_classes: int,
    dropout: float,
    stochastic_depth: float,
    activation: str,
    batch_norm: str,
    padding: str,
) -> None:
    """Raises ValueError for options that no model of any family accepts."""
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(f"num_classes must be a whole number from 1 up, not {num_classes!r}.")
    for name, rate in (("dropout", dropout), ("stochastic_depth", stochastic_depth)):
        if not 0 <= rate < 1:
            raise ValueError(f"{name} must be in [0, 1), not {rate!r}.")
    if batch_norm not in ("default", "syncbn"):
        raise ValueError(f"batch_norm must be 'syncbn' or 'default', not {batch_norm!r}.")
    if padding not in ("same", "symmetric"):
        raise ValueError(f"padding must be 'same' or 'symmetric', not {padding!r}.")
    try:
        keras.activations.get(activation)
    except ValueError:
        raise ValueError(
            f"activation {activation!r} is not one Keras knows, such as swish, relu or hard_swish."
        ) from None


def check_data_format(data_format: str) -> None:
    """Raises ValueError for an unknown data format."""
    if data_format not in (NHWC, NCHW):
        raise ValueError(f"data_format must be {NHWC!r} or {NCHW!r}, not {data_format!r}.")
