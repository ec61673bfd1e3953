"""From a `Config` to the model and the loaders it describes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import keras
import numpy as np

from convoy.dataloader import EvalCrop, InputOptions, Loader
from convoy.dataloader.cache import cache_source
from convoy.dataloader.sources import Source
from convoy.dataloader.synthetic import SyntheticLoader
from convoy.model import build_model
from convoy.model.catalog import get_arch
from convoy.model.depth import depth_from_top
from convoy.runtime.backends import backend
from convoy.runtime.config import Config, ConfigError
from convoy.runtime.data_source import open_split
from convoy.runtime.step import Clip, Loss, Prepare, Step, TrainState
from convoy.utils import clipping, distributed
from convoy.utils.losses import binary_cross_entropy, cross_entropy
from convoy.utils.optimizers import LAYER_WISE
from convoy.utils.text import for_reader

logger = logging.getLogger("convoy.data")

# ImageNet's number, for images that are made up.
DEFAULT_CLASSES = 1000
SYNTHETIC_STEPS = 100
# Written into checkpoints, so that a later change of a default does not change an old model.
DEFAULT_PADDING = {"efficientnet": "same", "resnet": "symmetric"}


def image_size(config: Config) -> int:
    """Pixels a side of the model's images."""
    return config.image_size or get_arch(config.arch).resolution


def train_image_size(config: Config) -> int:
    """Pixels a side of training images, in the last stage of progressive training."""
    return config.train_image_size or image_size(config)


def final_dropout(config: Config) -> float:
    """The rate before the head, in the last stage of progressive training."""
    return get_arch(config.arch).dropout if config.dropout is None else config.dropout


def model_arguments(
    config: Config, num_classes: int, implied: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What `build_model` is called with; checkpoints keep it, so that a model can be built again.

    Args:
        implied: what pre-trained weights were made with (`model.weights.inspect`). It replaces the
            architecture's defaults, and flags that are set replace it.
    """
    arch = get_arch(config.arch)
    arguments = {
        "arch": arch.name,
        "num_classes": num_classes,
        "image_size": image_size(config),
        "dropout": arch.dropout,
        "stochastic_depth": arch.stochastic_depth,
        "activation": arch.activation,
        "batch_norm": config.batch_norm,
        "bn_momentum": arch.bn_momentum,
        "bn_epsilon": arch.bn_epsilon,
        "weight_init": config.weight_init,
        "padding": DEFAULT_PADDING[arch.family],
        "mean": list(arch.mean),
        "std": list(arch.std),
    }
    if arch.family == "resnet":
        arguments |= {"zero_gamma": config.zero_gamma, "se_ratio": None}
    arguments |= {k: v for k, v in (implied or {}).items() if k in arguments}
    flags = {name: getattr(config, name, None) for name in arguments}
    return (
        arguments
        | {name: value for name, value in flags.items() if value is not None}
        | {"num_classes": num_classes}
    )


def build_training_model(
    config: Config, num_classes: int, arguments: Mapping[str, Any] | None = None
) -> keras.Model:
    """A freshly initialised model; the same on every rank and for every launch with one seed."""
    settled = dict(arguments or model_arguments(config, num_classes))
    one_size = config.n_stages == 1 and train_image_size(config) == settled["image_size"]
    settled |= {"seed": config.seed, "any_size": not one_size, "data_format": config.data_format}
    return build_model(settled.pop("arch"), **settled)


def eval_crop(config: Config) -> EvalCrop:
    """How an image is cut for evaluation and prediction."""
    return EvalCrop(
        padding=config.crop_padding,
        method=config.eval_crop,
        interpolation="bicubic" if config.interpolation == "random" else config.interpolation,
        exif_orientation=config.exif_orientation or "ignore",
    )


def say_found(source: Source) -> None:
    """Prints on rank 0, among the run's own lines, what data there are; warns of what is odd."""
    if distributed.rank() == 0:
        print(for_reader(source.found, sys.stdout), flush=True)
        for note in source.notes:
            logger.warning("%s", note)


def build_loader(
    config: Config,
    split: str,
    like: Loader | None = None,
    num_classes: int | None = None,
    source: Source | None = None,
    adapt: Callable[[Source], Source] | None = None,
) -> Loader | SyntheticLoader:
    """This rank's loader of a split: "train" with augmentation, "validation" without.

    Args:
        like: the training loader, whose classes the validation set must share.
        num_classes: the model's, when it exists already.
        source: of an earlier loader of this split, with what it has cached.
        adapt: makes the source's classes those of a model (`runtime.class_matching`); not called
            for a source of an earlier loader, which is adapted already.
    """
    training = split == "train"
    # The flag counts updates, and the loader batches, of which an update may gather several.
    passes = micro_steps(config) if training else 1
    batches = passes * config.steps_per_epoch if config.steps_per_epoch else None
    size = train_image_size(config) if training else image_size(config)
    reader = backend(config, training=training)
    if reader == "synthetic":
        return SyntheticLoader(
            image_size=size,
            batch_size=config.train_batch_size if training else config.eval_batch_size,
            num_classes=num_classes or config.num_classes or DEFAULT_CLASSES,
            steps_per_epoch=batches or passes * (config.prof or SYNTHETIC_STEPS),
            seed=config.seed,
            rank=distributed.rank(),
            world=distributed.size(),
        )
    if source is None:
        source = cache_source(
            open_split(config, split, say_found),
            config.cache,
            config.cache_gb,
            config.cache_dir,
            distributed.local_size(),
        )
        source = adapt(source) if adapt else source
    classes = num_classes or (like.num_classes if like else config.num_classes)
    options = InputOptions(
        image_size=size,
        batch_size=config.train_batch_size if training else config.eval_batch_size,
        # One rank counts them, where nothing but the records tells.
        num_classes=classes or source.num_classes or distributed.on_rank0(source.count_classes),
        seed=config.seed,
        steps_per_epoch=batches if training else None,
        sampling=config.sampling,
        crop_area=(config.crop_area_min, config.crop_area_max),
        crop_ratio=(config.crop_ratio_min, config.crop_ratio_max),
        interpolation=config.interpolation,
        hflip=config.hflip,
        exif_orientation=config.exif_orientation or "ignore",
        augmenter=config.augmenter_name,
        policy=config.autoaugmentation_name,
        num_layers=config.num_layers,
        magnitude=config.magnitude,
        magnitude_std=config.magnitude_std,
        space=config.randaugment_space,
        translate_const=config.translate_const,
        cutout_const=config.cutout_const,
        color_jitter=config.color_jitter,
        random_erasing=config.random_erasing,
        random_erasing_mode=config.random_erasing_mode,
        augment_on=config.augment_on,
        mixup_alpha=config.mixup_alpha,
        cutmix_alpha=config.cutmix_alpha,
        mix_switch_prob=config.mix_switch_prob,
        mix_prob=config.mix_prob,
        eval_crop=eval_crop(config),
        num_workers=config.num_workers,
        max_bad_examples=config.max_bad_examples,
        max_bad_eval_examples=config.max_bad_eval_examples,
    )
    place = {"training": training, "rank": distributed.rank(), "world": distributed.size()}
    if reader == "tfdata":
        return Loader(source, options, **place)
    from convoy.dataloader.dali import DaliLoader  # an extra

    place |= {"device": reader.removeprefix("dali-"), "device_id": distributed.local_rank()}
    return DaliLoader(source, options, **place, processes=distributed.local_size())


def micro_steps(config: Config) -> int:
    """Forward passes per update.

    In an elastic job, where nobody chooses the number of processes, as many as come nearest to
    `--optimizer_batch_size`.

    Raises:
        ConfigError: in others, it is no multiple of the images of one pass.
    """
    if config.grad_accum_steps:
        return config.grad_accum_steps
    images = config.train_batch_size * distributed.size()
    wanted = config.optimizer_batch_size or images
    if distributed.elastic():
        return max(1, round(wanted / images))
    if wanted % images:
        raise ConfigError(
            f"--optimizer_batch_size {wanted} is no multiple of {images}, the images of one pass"
            f" (--train_batch_size {config.train_batch_size} × {distributed.size()} processes)"
        )
    return wanted // images


def make_loss(config: Config) -> Loss:
    """The loss of each example, from logits and labels."""
    if config.loss == "softmax":
        return partial(cross_entropy, smoothing=config.label_smoothing)
    return partial(
        binary_cross_entropy,
        smoothing=config.label_smoothing,
        threshold=config.bce_target_threshold,
    )


def make_clip(config: Config) -> Clip | None:
    """The one kind of clipping that was asked for."""
    if config.grad_clip_norm:
        return lambda g, _: clipping.clip_by_global_norm(g, config.grad_clip_norm)
    if config.grad_clip_value:
        return lambda g, _: clipping.clip_by_value(g, config.grad_clip_value)
    if config.grad_clip_agc:
        return lambda g, variables: clipping.clip_adaptively(g, variables, config.grad_clip_agc)
    return None


def rate_scales(config: Config, model: keras.Model) -> list[float] | None:
    """What `--layer_decay` multiplies each trainable variable's learning rate by; None for 1."""
    if config.layer_decay == 1:
        return None
    depth = depth_from_top(model)
    return [config.layer_decay ** depth[v.path] for v in model.trainable_variables]


def make_exchange(config: Config) -> distributed.Exchange:
    """How gradients travel.

    Raises:
        DistributedError: this Horovod cannot do it.
    """
    if config.adasum:
        distributed.check_adasum()
    return distributed.Exchange(
        config.hvd_fp16_compression,
        config.gradient_predivide_factor,
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
    """The training step that the flags describe, not traced yet.

    Args:
        prepare: the loader's, of that name.
        class_weights: `runtime.class_weights.class_weights`.
    """
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
        exchange=make_exchange(config),
        micro_steps=micro_steps,
        use_xla=config.use_xla,
        seed=config.seed,
    )
