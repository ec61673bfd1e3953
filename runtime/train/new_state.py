"""Makes the `TrainState` of step 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from convoy.model.weights import freeze_backbone, inspect, load_pretrained
from convoy.model.weights.origin import how_applied
from convoy.runtime.builders.models import build_training_model, model_arguments
from convoy.runtime.run_folder import checkpoint, which_checkpoint
from convoy.runtime.run_folder.checkpoint import Checkpoint
from convoy.runtime.settings.config import Config
from convoy.runtime.train.loss_scale import LossScale
from convoy.runtime.train.objective import rate_scales
from convoy.runtime.train.step import TrainState
from convoy.utils.distributed import ranks
from convoy.utils.errors import ConfigError
from convoy.utils.optim.ema import EMA
from convoy.utils.optim.optimizers import make_optimizer, scale_rates


def new_state(
    config: Config,
    num_classes: int,
    saved: Checkpoint | None = None,
    say: Callable[[str], None] = lambda text: None,
    class_names: Sequence[str] | None = None,
) -> TrainState:
    """Makes the state of step 0, equal on every rank: rank 0's weights, from `--seed` or a file.

    Args:
        config: the flags.
        num_classes: number of logits.
        saved: the checkpoint that the run will resume from; then it does not read pre-trained
            weights, but builds the model for them.
        say: prints a line.
        class_names: class names of the data, in the order of the model's outputs.

    Raises:
        ConfigError: the flags and the checkpoint describe different models.
        WeightFileError: `--pretrained_from_file` does not fit.
    """
    arguments = _model_arguments(config, num_classes, saved)
    model = build_training_model(config, num_classes, arguments)
    if config.pretrained_from_file and not saved:
        for line in _load_weights(model, config, config.pretrained_from_file, class_names):
            say(line)
    if config.freeze_backbone:
        freeze_backbone(model, config.arch)
    ranks.broadcast_variables(model.weights)
    optimizer = _optimizer_for(model, config)
    half = keras.config.dtype_policy().name == "mixed_float16"
    state = TrainState(model, optimizer, LossScale(config.loss_scale, half), arguments)
    if config.moving_average_decay:
        state.ema = EMA(model.weights, config.moving_average_decay)
    return state


def _model_arguments(config: Config, num_classes: int, saved: Checkpoint | None) -> dict[str, Any]:
    """Returns the model's arguments: from the flags, and from a weight file what it implies."""
    implied: dict[str, Any] = {}
    file, partial = config.pretrained_from_file, config.pretrained_partial
    if file and saved:
        implied = saved.state["model"] | {"arch": config.arch, "num_classes": num_classes}
    elif file:
        implied = inspect(file, config.arch, partial=partial, padding=config.padding).arguments
    arguments = model_arguments(config, num_classes, implied)
    if saved:
        _check_same_model(saved, arguments)
    return arguments


def _load_weights(
    model: keras.Model, config: Config, file: str, class_names: Sequence[str] | None
) -> list[str]:
    """Loads a weight file into the model, and returns lines for the user."""
    file_names = ranks.on_rank0(lambda: _class_names_of(file))
    report = load_pretrained(
        model,
        config.arch,
        file,
        strict=config.pretrained_strict,
        partial=config.pretrained_partial,
        padding=config.padding,
        class_names=class_names,
        file_class_names=file_names,
    )
    lines = list(report.lines())
    if class_names and not file_names and not report.head_replaced:
        lines.append(
            "the file does not name its classes: its classifier's outputs are kept in their"
            f" order, the first for {class_names[0]!r}, and training continues from them"
        )
    return lines


def _optimizer_for(model: keras.Model, config: Config) -> keras.optimizers.Optimizer:
    """Returns the flags' optimizer, built on the model's trainable variables."""
    optimizer = make_optimizer(
        config.optimizer,
        momentum=config.momentum,
        nesterov=config.nesterov,
        rho=config.decay,
        epsilon=config.epsilon,
        beta_1=config.beta_1,
        beta_2=config.beta_2,
        trust_coefficient=config.trust_coefficient,
        weight_decay=config.weight_decay,
        bn_weight_decay=config.bn_weight_decay,
    )
    optimizer.build(model.trainable_variables)
    if (scales := rate_scales(config, model)) is not None:
        scale_rates(optimizer, model.trainable_variables, scales)
    return optimizer


def _class_names_of(file: str) -> list[str] | None:
    """Returns the class names in a weight file, a run or a checkpoint."""
    folder = which_checkpoint.folder_of(file)
    said = checkpoint.read_state(folder) if folder is not None else how_applied(file)
    return said.get("class_names")


def _check_same_model(saved: Checkpoint, arguments: dict[str, Any]) -> None:
    built = saved.state["model"]
    if built != arguments:
        changed = sorted(k for k in {*built, *arguments} if built.get(k) != arguments.get(k))
        told = [f"--{name} {arguments.get(name)} instead of {built.get(name)}" for name in changed]
        raise ConfigError(
            f"--resume_checkpoint: {saved.path} holds another model ({', '.join(told)}): give the"
            " same flags as before, or another --model_dir"
        )
