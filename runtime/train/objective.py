"""Builds the training step from a `Config`: loss, clipping, rates by layer, exchange."""

from __future__ import annotations

from functools import partial

import keras
import numpy as np

from convoy.model.layer_groups import depth_from_top
from convoy.runtime.fitted.memory_pool import reserve_pool
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.recomputation import recomputed_blocks
from convoy.runtime.train.step import Clip, Loss, Prepare, Step, TrainState
from convoy.utils.distributed import ranks
from convoy.utils.optim import clipping
from convoy.utils.optim.losses import binary_cross_entropy, cross_entropy
from convoy.utils.optim.optimizers import LAYER_WISE


def make_loss(config: Config) -> Loss:
    """Returns the loss of each example as a function of logits and labels."""
    if config.loss == "softmax":
        return partial(cross_entropy, smoothing=config.label_smoothing)
    return partial(
        binary_cross_entropy,
        smoothing=config.label_smoothing,
        threshold=config.bce_target_threshold,
    )


def make_clip(config: Config) -> Clip | None:
    """Returns the requested kind of clipping, if any."""
    if config.grad_clip_norm:
        return lambda g, _: clipping.clip_by_global_norm(g, config.grad_clip_norm)
    if config.grad_clip_value:
        return lambda g, _: clipping.clip_by_value(g, config.grad_clip_value)
    if config.grad_clip_agc:
        return lambda g, variables: clipping.clip_adaptively(g, variables, config.grad_clip_agc)
    return None


def rate_scales(config: Config, model: keras.Model) -> list[float] | None:
    """Returns each trainable variable's factor on the rate for `--layer_decay`; None means 1."""
    if config.layer_decay == 1:
        return None
    depth = depth_from_top(model)
    return [config.layer_decay ** depth[v.path] for v in model.trainable_variables]


def make_exchange(config: Config, scaled: bool) -> ranks.Exchange:
    """Returns how ranks exchange gradients.

    A loss scale makes gradients as large as float16 allows. Horovod adds them up before it divides,
    so in float16 the sum would overflow where the mean does not.

    Args:
        config: the flags.
        scaled: whether the gradients contain a loss scale.

    Raises:
        DistributedError: this Horovod does not support it.
    """
    if config.adasum:
        ranks.check_adasum()
    predivide = config.gradient_predivide_factor
    if predivide is None:
        predivide = float(ranks.size()) if config.hvd_fp16_compression and scaled else 1.0
    return ranks.Exchange(
        config.hvd_fp16_compression,
        predivide,
        config.gradient_groups,
        config.adasum,
    )


def make_step(
    config: Config,
    state: TrainState,
    micro_steps: int,
    prepare: Prepare | None = None,
    class_weights: np.ndarray | None = None,
) -> Step:
    """Builds the training step for the flags, not yet traced, and reserves memory for it.

    Args:
        config: the flags.
        state: the state to train.
        micro_steps: passes per update.
        prepare: the loader's `prepare`.
        class_weights: from `runtime.data.class_weights.class_weights`.
    """
    reserve_pool(config, state.model)
    return Step(
        state,
        loss=make_loss(config),
        prepare=prepare,
        weight_decay=0.0 if config.optimizer in LAYER_WISE else config.weight_decay,
        weight_decay_style=config.weight_decay_style,
        bn_weight_decay=config.bn_weight_decay,
        rate_scales=rate_scales(config, state.model),
        class_weights=class_weights,
        clip=make_clip(config),
        exchange=make_exchange(config, state.loss_scale.active),
        recompute=recomputed_blocks(config),
        micro_steps=micro_steps,
        use_xla=config.use_xla,
        seed=config.seed,
    )
