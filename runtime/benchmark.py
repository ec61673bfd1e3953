"""`--mode training_benchmark` and `inference_benchmark`: speed, without side effects on a run."""

from __future__ import annotations

from typing import Any

from runtime.build import DEFAULT_CLASSES, build_loader, build_training_model
from runtime.checkpoint import CheckpointError
from runtime.config import Config
from runtime.evaluate import evaluate, make_eval_step
from runtime.trained import trained_model
from utils.logging import RunLog

DEFAULT_STEPS = 100


def training(config: Config, run_log: RunLog) -> dict[str, Any]:
    """Trains `--prof` steps (100 unless told) without evaluation or checkpoints; returns
    throughput.
    """
    from runtime.train import Trainer

    config = config.with_(no_checkpoints=True, prof=config.prof or DEFAULT_STEPS)
    return Trainer(config, run_log).run()


def inference(config: Config) -> dict[str, Any]:
    """Evaluates `--prof` batches (100 unless told), of real data or synthetic, with the run's
    weights if any.
    """
    steps = config.prof or DEFAULT_STEPS
    try:
        model = trained_model(config).model
    except CheckpointError:
        # Speed does not depend on the weights; accuracy is left out below, so that nobody takes
        # it for a result.
        model = build_training_model(config, config.num_classes or DEFAULT_CLASSES)
    classes = model.output_shape[-1]
    batches = build_loader(config, "validation", num_classes=classes).batches(0)
    figures = evaluate(
        make_eval_step(model, config.use_xla), batches, config.eval_batch_size, prof=steps
    )
    return {k: v for k, v in figures.items() if not k.startswith("eval_")}
