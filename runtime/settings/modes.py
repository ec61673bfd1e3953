"""Groups of modes that have flags and checks in common."""

from __future__ import annotations

TRAINING_MODES = ("train", "train_and_eval", "lr_find", "training_benchmark")

APPLYING_MODES = ("eval", "predict", "export", "inference_benchmark")

DATA_MODES = (*TRAINING_MODES, "eval")
