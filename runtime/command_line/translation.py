"""Translates names that users of other programs know into ours.

`main.py eval …` becomes `main.py --mode eval …`, `--lr` `--lr_init`, `--data-dir` `--data_dir`.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from convoy.runtime.settings.config import kinds, spellings
from convoy.runtime.settings.modes import MODE_ALIASES, MODES
from convoy.utils.errors import ConfigError
from convoy.utils.text import printable

OPTIONS = ("config", "print_config", "print_completion", "help")
"""Options that are not settings."""

# Other names of the same thing; they are translated.
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

# Names of similar things; the error message suggests ours.
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


def understand(args: Sequence[str]) -> list[str]:
    """Returns a command line with the mode as a flag, and flags under our names.

    Raises:
        ConfigError: the first word is not a mode, or there are two modes.
    """
    own = [_own(arg) for arg in args]
    if not own or own[0].startswith("-"):
        return own
    word, rest = own[0], own[1:]
    if word == "help":
        return ["--help", *rest]
    mode = _mode(word)
    if any(arg.split("=")[0] == "--mode" for arg in rest):
        raise ConfigError(f"{word} is a mode, and --mode names another: give one of them")
    return [*rest, "--mode", mode]  # after --config, whose file may set another mode


def translations(args: Sequence[str]) -> str:
    """Tells the user in one line which names were translated; "" if none were."""
    told = []
    for written in dict.fromkeys(arg.split("=")[0] for arg in args):
        own = _own(written)
        if written.replace("-", "_") != own.replace("-", "_"):
            note = " (for --lr_base_batch images per step)" if own == "--lr_init" else ""
            told.append(f"{written} as {own}{note}")
    return f"convoy: took {', '.join(told)}" if told else ""


def _own(arg: str) -> str:
    """Returns a flag under our name; other words unchanged."""
    if not arg.startswith("--"):
        return arg
    written, equals, value = arg[2:].partition("=")
    no, name = ("no-", written[3:]) if written.startswith(("no-", "no_")) else ("", written)
    if written in _known() or (no and name in _known()):
        return arg
    plain = name.replace("-", "_")
    own = plain if plain in _known() else SAME.get(plain.lower())
    if not own or (no and kinds()[own].types != (bool,)):
        return arg
    return f"--{no}{own}{equals}{value}"


@cache
def _known() -> frozenset[str]:
    return frozenset((*spellings(), *OPTIONS))


def _mode(word: str) -> str:
    """Returns the mode that the first word names."""
    if (mode := MODE_ALIASES.get(word, word)) in MODES:
        return mode
    if "/" in word or "." in word or Path(word).exists():
        raise ConfigError(
            f"{printable(word)} is not a mode: for a folder of images to train on, give --data_dir"
            f" {word}; for a recipe, --config {word}; for images to label, --mode predict"
            f" --predict_dir {word}"
        )
    raise ConfigError(unknown_mode(word))


def unknown_mode(written: str) -> str:
    """Returns the message about a mode that does not exist."""
    near = difflib.get_close_matches(written.lower(), (*MODES, *MODE_ALIASES), n=1, cutoff=0.4)
    meant = MODE_ALIASES.get(near[0], near[0]) if near else ""
    return f"there is no mode {printable(written)}; " + (
        f"did you mean {meant}?" if meant else f"choose from {', '.join(MODES)}"
    )


def unknown_flag(written: str) -> str:
    """Returns the message about a flag that does not exist, or a word that belongs to no flag."""
    if written in (*MODES, *MODE_ALIASES):
        return f"{written} is a mode: --mode {written}"
    plain = written.lstrip("-").replace("-", "_").lower()
    meant = f"mode {plain}" if plain in MODES else NEAR.get(plain) or _resembling(plain)
    dashes = "--" if written.startswith("-") else ""
    hint = f"did you mean {dashes}{meant}?" if meant else "--help=all lists all"
    return f"there is no flag {written}; {hint}"


def _resembling(word: str) -> str:
    """Returns our flag whose name, or other name, is most like a misspelt word; "" if none is."""
    others = SAME | NEAR
    for names, cutoff in ((_known(), 0.82), (others, 0.82), (_known(), 0.65)):
        if near := difflib.get_close_matches(word, names, n=1, cutoff=cutoff):
            return others.get(near[0], near[0])
    return ""
