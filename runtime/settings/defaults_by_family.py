"""Defaults of families of architectures that differ from `runtime.settings.config`."""

from typing import Any

# Values of the ResNet50 document that differ from the EfficientNet document's.
FAMILY_DEFAULTS: dict[str, dict[str, Any]] = {
    "resnet": {
        "optimizer": "momentum",
        "max_epochs": 90,
        "train_batch_size": 256,
        "eval_batch_size": 256,
        "lr_init": 0.1,
        "lr_base_batch": 0,
        "lr_decay": "step",  # at 30, 60 and 80 of 90 epochs
        "lr_decay_rate": 0.1,
        "warmup_epochs": 0.0,
        "weight_decay": 1e-4,
        "weight_decay_style": "half_l2",
        "label_smoothing": 0.0,
        "augmenter_name": "none",
        "crop_area_min": 0.08,
        "crop_ratio_max": 4 / 3,
        "eval_crop": "resize",
        "log_steps": 10,
    }
}
