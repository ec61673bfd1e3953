"""Groups modes that share flags and checks."""

from __future__ import annotations

RUN_MODES = ("train", "train_and_eval")
"""Modes that make a run with checkpoints."""

TRAINING_MODES = (*RUN_MODES, "lr_find", "training_benchmark")

APPLYING_MODES = ("eval", "predict", "export", "inference_benchmark")

DATA_MODES = (*TRAINING_MODES, "eval")

AVERAGE = {"auto": None, "raw": False, "ema": True}
"""Whether each value of `--weights` means the moving average; None: whichever is better."""
