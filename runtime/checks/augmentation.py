"""Checks the flags of augmentation and progressive training. No TensorFlow."""

from __future__ import annotations

from convoy.runtime.settings.config import Config
from convoy.utils.errors import ConfigError


def check_augmentation(config: Config) -> None:
    """Rejects augmentation settings out of range, and sizes that the model does not accept.

    Raises:
        ConfigError: the message has the flag's name.
    """
    from convoy.dataloader.augment.policies import get_policy, jitter_strengths

    try:
        get_policy(config.autoaugmentation_name)
    except ValueError as error:
        raise ConfigError(f"--autoaugmentation_name: {error}") from error
    try:
        jitter_strengths(config.color_jitter or 0.0)
    except ValueError as error:
        raise ConfigError(f"--color_jitter: {error}") from error
    _train_size(config, "train_image_size")
    if config.n_stages > 1:
        _stages(config)


def _train_size(config: Config, flag: str) -> None:
    from convoy.model.catalog import check_image_size, get_arch

    size = getattr(config, flag)
    try:
        if size is not None:
            check_image_size(get_arch(config.arch), size)
    except ValueError as error:
        raise ConfigError(f"--{flag}: {error}") from error


def _stages(config: Config) -> None:
    from convoy.model.catalog import get_arch

    arch = get_arch(config.arch)
    _train_size(config, "base_img_size")
    if config.n_stages > config.max_epochs:
        raise ConfigError(
            f"--n_stages {config.n_stages} are more than the {config.max_epochs} of --max_epochs"
        )
    size = config.train_image_size or config.image_size or arch.resolution
    if config.base_img_size > size:
        raise ConfigError(
            f"--base_img_size {config.base_img_size} is larger than the last stage's {size} pixels:"
            " lower it, or raise --train_image_size or --image_size"
        )
    dropout = arch.dropout if config.dropout is None else config.dropout
    if config.base_dropout and not dropout:
        raise ConfigError(
            "--base_dropout has no effect with a last stage without dropout: set --dropout"
        )
    rises = config.base_img_size < size or config.base_dropout not in (None, dropout)
    rises |= config.augmenter_name == "randaugment" and config.base_randaug_mag != config.magnitude
    rises |= (config.base_mixup, config.base_cutmix) != (config.mixup_alpha, config.cutmix_alpha)
    if not rises:
        raise ConfigError(
            f"--n_stages {config.n_stages} has no effect: no setting rises from stage to stage."
            " Lower --base_img_size, or raise --image_size or --train_image_size"
        )
