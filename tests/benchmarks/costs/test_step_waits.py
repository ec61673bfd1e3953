"""The four ways to train that benchmarks/costs/step_waits.py compares do the same work."""

import numpy as np

from benchmarks.costs.step_waits import table, turns
from convoy.runtime.settings.config import Config
from convoy.runtime.train.trainer import Trainer
from convoy.utils.logging import make_json_logger


def test_each_way_updates_the_weights_as_often(tmp_path):
    steps = 3
    config = Config(
        arch="efficientnet-test",
        image_size=32,
        data_backend="synthetic",
        num_classes=10,
        train_batch_size=4,
        steps_per_epoch=steps,
        max_epochs=1,
        warmup_epochs=0.0,
        optimizer="momentum",
        no_checkpoints=True,
        model_dir=str(tmp_path),
    )
    trainer = Trainer(config, make_json_logger(None))
    iterations = trainer.state.optimizer.iterations
    for name, turn in turns(trainer, steps).items():
        before, kernel = int(iterations.numpy()), trainer.state.model.weights[0].numpy()
        turn()
        assert int(iterations.numpy()) == before + steps, name
        assert not np.array_equal(trainer.state.model.weights[0].numpy(), kernel), name


def test_the_table_compares_turn_by_turn():
    lines = list(table({"alone": [0.01, 0.02], "loop": [0.02, 0.03]}))
    assert lines[2:] == [
        "| alone | 15.0 (10.0–20.0) | 1.000 (1.000–1.000) |",
        "| loop | 25.0 (20.0–30.0) | 1.750 (1.500–2.000) |",
    ]
