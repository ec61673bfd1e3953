"""Holds the settings of the input pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from convoy.dataloader.images.crops import RANDOM
from convoy.dataloader.images.eval_crop import EvalCrop
from convoy.dataloader.images.exif import check_orientation
from convoy.dataloader.images.interpolations import check_interpolation

if TYPE_CHECKING:
    from convoy.dataloader.augment.augmenter import Augmenter
    from convoy.dataloader.augment.mixing import Mixer


@dataclass(frozen=True)
class InputOptions:
    """Settings for the path of examples into a batch.

    Attributes:
        image_size: side of the square images in pixels.
        batch_size: examples per batch on one rank.
        num_classes: number of classes of the model; None takes the source's own number.
        seed: seed of order, crops, augmentation and mixing.
        steps_per_epoch: None uses every example once per epoch (training only).
        sampling: class frequencies in training: "natural", as they occur, or one of
            `balanced.SAMPLING`.
        crop_area, crop_ratio: ranges of the random-resized crop (share of the image's area; width /
            height).
        interpolation: for resizing in training; "random" picks bilinear or bicubic.
        hflip: probability of a left-right flip.
        exif_orientation: "apply" turns training images as EXIF says, before the crop; "ignore" does
            not. `eval_crop` has its own setting. augmenter, policy, num_layers, magnitude,
            magnitude_std, space, translate_const, cutout_const, color_jitter, random_erasing,
            random_erasing_mode: passed to `dataloader.augment.augmenter.make_augmenter`;
            `augmenter` None means no policy.
        augment_on: "cpu": the loader augments and mixes. "device": the loader yields
            `device_plan.Planned` in place of images, and the training step augments and mixes.
        mixup_alpha, cutmix_alpha, mix_switch_prob, mix_prob: passed to
            `dataloader.augment.mixing.make_mixer`. Partners are drawn within a rank's own batch.
        eval_crop: how evaluation crops its square.
        num_workers: decoding threads; None lets tf.data decide.
        read_threads: reading threads; they hide the latency of network disks.
        max_bad_examples, max_bad_eval_examples: unreadable examples to tolerate in training and in
            evaluation: below 1 a fraction of the set (rounded down), from 1 on a count.
    """

    image_size: int = 224
    batch_size: int = 32
    num_classes: int | None = None
    seed: int = 0
    steps_per_epoch: int | None = None
    sampling: str = "natural"
    crop_area: tuple[float, float] = (0.05, 1.0)
    crop_ratio: tuple[float, float] = (0.75, 1.333)
    interpolation: str = "bilinear"
    hflip: float = 0.5
    exif_orientation: str = "ignore"
    augmenter: str | None = None
    policy: str = "v0"
    num_layers: int = 2
    magnitude: float = 10
    magnitude_std: float = 0.0
    space: str = "tf"
    translate_const: float | None = None
    cutout_const: float | None = None
    color_jitter: float | Sequence[float] | None = None
    random_erasing: float = 0.0
    random_erasing_mode: str = "noise"
    augment_on: str = "cpu"
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    mix_switch_prob: float = 0.5
    mix_prob: float = 1.0
    eval_crop: EvalCrop = field(default_factory=EvalCrop)
    num_workers: int | None = None
    read_threads: int = 4
    max_bad_examples: float = 0.001
    max_bad_eval_examples: float = 0

    def __post_init__(self) -> None:
        for name in ("image_size", "batch_size", "read_threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.num_workers is not None and self.num_workers < 1:
            raise ValueError(f"num_workers must be at least 1, got {self.num_workers}.")
        if self.num_classes is not None and self.num_classes < 1:
            raise ValueError(f"--num_classes must be at least 1, got {self.num_classes}.")
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise ValueError(f"crop_area must be 0 < least <= greatest <= 1, got {self.crop_area}.")
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError(f"crop_ratio must be 0 < least <= greatest, got {self.crop_ratio}.")
        if not 0 <= self.hflip <= 1:
            raise ValueError(f"hflip is a probability, got {self.hflip}.")
        if self.augment_on not in ("cpu", "device"):
            raise ValueError(f"augment_on must be cpu or device, got {self.augment_on!r}.")
        if self.mixup_alpha < 0 or self.cutmix_alpha < 0:
            raise ValueError("mixup_alpha and cutmix_alpha must be 0 or more.")
        for name in ("max_bad_examples", "max_bad_eval_examples"):
            limit = getattr(self, name)
            if limit < 0 or (limit >= 1 and limit != int(limit)):
                raise ValueError(f"--{name} is a fraction below 1 or a whole count, got {limit}.")
        if self.interpolation != RANDOM:
            check_interpolation(self.interpolation)
        check_orientation(self.exif_orientation)

    @property
    def turn(self) -> bool:
        """Returns whether training images are turned as EXIF says."""
        return self.exif_orientation == "apply"

    def make_augmenter(self) -> Augmenter | None:
        """Returns the function that augments a training image after its crop, or None.

        Raises:
            ValueError: a name is unknown, or a number is out of range.
        """
        from convoy.dataloader.augment.augmenter import make_augmenter

        return make_augmenter(
            self.augmenter or "none",
            image_size=self.image_size,
            policy=self.policy,
            num_layers=self.num_layers,
            magnitude=self.magnitude,
            magnitude_std=self.magnitude_std,
            space=self.space,
            translate_const=self.translate_const,
            cutout_const=self.cutout_const,
            color_jitter=self.color_jitter,
            random_erasing=self.random_erasing,
            random_erasing_mode=self.random_erasing_mode,
        )

    def make_mixer(self, num_classes: int) -> Mixer | None:
        """Returns the function that mixes a batch of training images, or None.

        Raises:
            ValueError: a number is out of range.
        """
        from convoy.dataloader.augment.mixing import make_mixer

        return make_mixer(
            self.mixup_alpha,
            self.cutmix_alpha,
            num_classes,
            switch_prob=self.mix_switch_prob,
            prob=self.mix_prob,
        )
