"""Builds the loaders of training and evaluation from a `Config`."""

from __future__ import annotations

from collections.abc import Callable

from convoy.dataloader import InputOptions, Loader
from convoy.dataloader.data_loader import DataLoader
from convoy.dataloader.sources.cache import cache_source
from convoy.dataloader.sources.source import Source
from convoy.dataloader.synthetic import SyntheticLoader
from convoy.runtime.builders.models import DEFAULT_CLASSES
from convoy.runtime.data.open_split import open_split, say_found
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flags import batch_number
from convoy.runtime.settings.images import eval_crop, image_size, train_image_size
from convoy.runtime.settings.input_backend import backend
from convoy.utils.distributed import ranks
from convoy.utils.errors import ConfigError

SYNTHETIC_STEPS = 100


def build_loader(
    config: Config,
    split: str,
    like: DataLoader | None = None,
    num_classes: int | None = None,
    source: Source | None = None,
    adapt: Callable[[Source], Source] | None = None,
) -> DataLoader:
    """Builds this rank's loader of a split: "train" with augmentation, "validation" without.

    Args:
        config: the flags.
        split: "train" or "validation".
        like: the training loader, whose classes the validation set must share.
        num_classes: the model's number of classes, if it already exists.
        source: the source of an earlier loader of this split, with its cache.
        adapt: maps the source's classes to a model's (`runtime.data.class_matching`); not called
            for a source of an earlier loader, which is already adapted.
    """
    training = split == "train"
    # --steps_per_epoch counts updates, but loaders count batches; an update may take several.
    passes = micro_steps(config) if training else 1
    reader = backend(config, training=training)
    if reader == "synthetic":
        return _synthetic_loader(config, training, passes, num_classes)
    if source is None:
        source = _open(config, split)
        source = adapt(source) if adapt else source
    classes = num_classes or (like.num_classes if like else config.num_classes)
    # One rank counts them if only the records tell.
    classes = classes or source.num_classes or ranks.on_rank0(source.count_classes)
    options = _input_options(config, training, passes, classes)
    if reader == "tfdata":
        return Loader(source, options, training=training, rank=ranks.rank(), world=ranks.size())
    from convoy.dataloader.dali import DaliLoader  # an extra

    return DaliLoader(
        source,
        options,
        training=training,
        rank=ranks.rank(),
        world=ranks.size(),
        device=reader.removeprefix("dali-"),
        device_id=ranks.local_rank(),
        processes=ranks.local_size(),
    )


def _synthetic_loader(
    config: Config, training: bool, passes: int, num_classes: int | None
) -> SyntheticLoader:
    return SyntheticLoader(
        image_size=_image_size(config, training),
        batch_size=_batch_size(config, training),
        num_classes=num_classes or config.num_classes or DEFAULT_CLASSES,
        steps_per_epoch=passes * (config.steps_per_epoch or config.prof or SYNTHETIC_STEPS),
        seed=config.seed,
        rank=ranks.rank(),
        world=ranks.size(),
    )


def _open(config: Config, split: str) -> Source:
    """Opens a split, with the cache that the flags ask for."""
    return cache_source(
        open_split(config, split, say_found),
        config.cache,
        config.cache_gb,
        config.cache_dir,
        ranks.local_size(),
    )


def _input_options(
    config: Config, training: bool, passes: int, num_classes: int | None
) -> InputOptions:
    steps = config.steps_per_epoch
    return InputOptions(
        image_size=_image_size(config, training),
        batch_size=_batch_size(config, training),
        num_classes=num_classes,
        seed=config.seed,
        steps_per_epoch=passes * steps if training and steps else None,
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


def _image_size(config: Config, training: bool) -> int:
    return train_image_size(config) if training else image_size(config)


def _batch_size(config: Config, training: bool) -> int:
    return batch_number(config.train_batch_size) if training else config.eval_batch_size


def micro_steps(config: Config) -> int:
    """Returns the number of forward passes per update.

    In an elastic job, where nobody chooses the number of processes, this is the number that comes
    nearest to `--optimizer_batch_size`.

    Raises:
        ConfigError: in other jobs, the flag is not a multiple of the images of one pass.
    """
    if config.grad_accum_steps:
        return config.grad_accum_steps
    images = batch_number(config.train_batch_size) * ranks.size()
    wanted = config.optimizer_batch_size or images
    if ranks.elastic():
        return max(1, round(wanted / images))
    if wanted % images:
        raise ConfigError(
            f"--optimizer_batch_size {wanted} must be a multiple of {images}, the images of one"
            f" pass (--train_batch_size {config.train_batch_size} × {ranks.size()} processes)"
        )
    return wanted // images
