"""Declares every mode once: the help, the command line and `Runner` take their facts from here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mode:
    """One value of `--mode`.

    Attributes:
        does: what it does, for help.
        saves: it makes a run with checkpoints.
        trains: it trains a model.
        applies: it applies a checkpoint, with the settings of its run.
        reads_data: it reads a split of `--data_dir`.
        alone: it runs in only one process.
        sets_up: it needs processes, devices and Keras set up first.
        prints: its result is its output, not files.
        engines: it computes in TensorFlow or in ONNX Runtime, as `--engine` says.
        other_names: older names, or those of other programs.
    """

    does: str
    saves: bool = False
    trains: bool = False
    applies: bool = False
    reads_data: bool = False
    alone: bool = True
    sets_up: bool = True
    prints: bool = False
    engines: bool = False
    other_names: tuple[str, ...] = ()


MODES = {
    "train_and_eval": Mode(
        "train, and evaluate after each epoch (the default)",
        saves=True,
        trains=True,
        reads_data=True,
        alone=False,
    ),
    "train": Mode(
        "train without evaluation", saves=True, trains=True, reads_data=True, alone=False
    ),
    "lr_find": Mode("look for a learning rate", trains=True, reads_data=True, alone=False),
    "eval": Mode(
        "evaluate a trained model",
        applies=True,
        reads_data=True,
        alone=False,
        prints=True,
        engines=True,
        other_names=("evaluate", "test"),
    ),
    "predict": Mode(
        "label images with a trained model",
        applies=True,
        engines=True,
        other_names=("prediction",),
    ),
    "export": Mode("write a trained model as SavedModel, TFLite or ONNX", applies=True),
    "convert": Mode("write a model's weights for another program"),
    "report": Mode("write a page about a run, or about several"),
    "training_benchmark": Mode(
        "measure the speed and memory of training", trains=True, reads_data=True, alone=False
    ),
    "inference_benchmark": Mode("measure the speed of a model and of its exports", applies=True),
    "list": Mode("list the architectures", sets_up=False, prints=True),
    "summary": Mode("show the layers of an architecture", prints=True),
    "env": Mode("show versions and devices", alone=False, sets_up=False, prints=True),
}
MODE_ALIASES = {other: name for name, mode in MODES.items() for other in mode.other_names}

RUN_MODES = tuple(name for name, mode in MODES.items() if mode.saves)
TRAINING_MODES = tuple(name for name, mode in MODES.items() if mode.trains)
APPLYING_MODES = tuple(name for name, mode in MODES.items() if mode.applies)
DATA_MODES = tuple(name for name, mode in MODES.items() if mode.reads_data)
ENGINE_MODES = tuple(name for name, mode in MODES.items() if mode.engines)

# Sets of modes that use a flag, for the declarations in `config.py`. lr_find and training_benchmark
# rehearse a run, whose command people repeat, so every flag of a run counts as used in them.
ALL_MODES = tuple(MODES)
SET_UP_MODES = tuple(name for name, mode in MODES.items() if mode.sets_up)
FOLDER_MODES = tuple(name for name in SET_UP_MODES if name != "summary")
MODEL_MODES = (*TRAINING_MODES, *APPLYING_MODES, "report", "summary")
COMPUTING_MODES = (*TRAINING_MODES, *APPLYING_MODES, "report")
SHARED_MODES = tuple(name for name, mode in MODES.items() if mode.sets_up and not mode.alone)
READING_MODES = (*DATA_MODES, "export", "report", "inference_benchmark")
BENCHMARK_MODES = ("training_benchmark", "inference_benchmark")

AVERAGE = {"auto": None, "raw": False, "ema": True}
"""Whether each value of `--weights` means the moving average; None: whichever is better."""
