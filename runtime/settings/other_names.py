"""Knows the names that other programs give to our settings."""

from __future__ import annotations

import difflib
from collections.abc import Collection

# Other names of the same thing. The command line translates them.
SAME = {
    **dict.fromkeys(("lr", "learning_rate", "learningrate"), "lr_init"),
    **dict.fromkeys(("epochs", "num_epochs", "n_epochs"), "max_epochs"),
    **dict.fromkeys(("batch_size", "batch", "bs", "per_device_batch_size"), "train_batch_size"),
    **dict.fromkeys(("output_dir", "save_dir", "run_dir"), "model_dir"),
    **dict.fromkeys(("data", "data_path", "dataset_dir", "data_root"), "data_dir"),
    **dict.fromkeys(("model", "architecture", "network", "model_name"), "arch"),
    **dict.fromkeys(("img_size", "imgsz", "resolution", "input_size", "image_sz"), "image_size"),
    **dict.fromkeys(("resume", "continue"), "resume_checkpoint"),
    **dict.fromkeys(("workers", "num_loaders", "data_workers"), "num_workers"),
    **dict.fromkeys(("lr_scheduler", "scheduler", "sched", "lr_schedule"), "lr_decay"),
    **dict.fromkeys(("opt", "optim"), "optimizer"),
    **dict.fromkeys(("wd",), "weight_decay"),
    **dict.fromkeys(("warmup", "lr_warmup"), "warmup_epochs"),
    **dict.fromkeys(("val_batch_size", "test_batch_size", "validation_batch_size"),
                    "eval_batch_size"),
    **dict.fromkeys(("val_split", "validation_split", "val_fraction"), "validation_fraction"),
    **dict.fromkeys(("patience", "early_stopping_patience"), "early_stopping"),
    **dict.fromkeys(("classes", "n_classes", "nb_classes"), "num_classes"),
    **dict.fromkeys(("smoothing",), "label_smoothing"),
    **dict.fromkeys(("drop_rate", "dropout_rate"), "dropout"),
    **dict.fromkeys(("drop_path", "drop_path_rate"), "stochastic_depth"),
    **dict.fromkeys(("ema_decay", "model_ema_decay"), "moving_average_decay"),
    **dict.fromkeys(("amp", "mixed_precision"), "use_amp"),
    **dict.fromkeys(("xla", "jit"), "use_xla"),
    **dict.fromkeys(("mixup",), "mixup_alpha"),
    **dict.fromkeys(("cutmix",), "cutmix_alpha"),
    **dict.fromkeys(("log_interval", "log_every"), "log_steps"),
    **dict.fromkeys(("accumulate_grad_batches", "gradient_accumulation_steps"), "grad_accum_steps"),
}  # fmt: skip

# What such a name means in some modes: the batch of what the mode does.
IN_MODE = {
    "train_batch_size": {
        "predict": "predict_batch_size",
        "eval": "eval_batch_size",
        "inference_benchmark": "eval_batch_size",
    }
}

# Names of similar things. Error messages suggest ours.
NEAR = {
    **dict.fromkeys(("base_lr", "lerning_rate"), "lr_init"),
    **dict.fromkeys(("epoch",), "max_epochs"),
    **dict.fromkeys(("b",), "train_batch_size"),
    **dict.fromkeys(("log_dir", "logdir", "out", "o"), "model_dir"),
    **dict.fromkeys(("train_dir", "dataset_path"), "data_dir"),
    **dict.fromkeys(("resume_from_checkpoint",), "resume_checkpoint"),
    **dict.fromkeys(("init_from", "initial_weights", "weights_file"), "pretrained_from_file"),
    **dict.fromkeys(("fp16", "precision"), "dtype"),
    **dict.fromkeys(("j",), "num_workers"),
    **dict.fromkeys(("gpus", "num_gpus", "np", "devices", "n_gpus"), "nproc"),
    **dict.fromkeys(("augmentation", "aug", "aa"), "augmenter_name"),
    **dict.fromkeys(("input", "images", "source"), "predict_dir"),
    **dict.fromkeys(("format",), "export_format"),
    **dict.fromkeys(("test", "evaluate", "validate"), "mode eval"),
    **dict.fromkeys(("infer", "inference", "classify"), "mode predict"),
}


def meant_by(word: str, known: Collection[str]) -> str:
    """Returns the setting that somebody may have meant by an unknown name; "" if none is like it.

    Args:
        word: the unknown name, in lower case, with underscores.
        known: the names of all settings.
    """
    others = SAME | NEAR
    if word in others:
        return others[word]
    for names, cutoff in ((known, 0.82), (others, 0.82), (known, 0.65)):
        if near := difflib.get_close_matches(word, names, n=1, cutoff=cutoff):
            return others.get(near[0], near[0])
    return ""
