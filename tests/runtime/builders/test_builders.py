"""The training step and loaders that are built from a `Config`."""

import numpy as np
import tensorflow as tf

from convoy.model.layer_groups import depth_from_top
from convoy.runtime.builders.inputs import build_loader
from convoy.runtime.settings.config import Config
from convoy.runtime.train.new_state import new_state
from convoy.runtime.train.objective import make_exchange, make_step, rate_scales


def test_layer_decay_scales_each_blocks_update_by_its_depth():
    """Compares one update with and without `layer_decay`, for the same gradients."""
    moved = []
    for layer_decay in (1.0, 0.5):
        config = Config(
            arch="efficientnet-test", layer_decay=layer_decay, weight_decay=0.1, optimizer="sgd",
            weight_decay_style="decoupled",
        )  # fmt: skip
        state = new_state(config, num_classes=10)
        step = make_step(config, state, 1)
        before = [v.numpy().astype(np.float64) for v in step.variables]
        gradients = [tf.ones(v.shape) for v in step.variables]
        step.update(gradients, tf.constant(1.0), tf.constant(0.1), tf.constant(0, tf.int64))
        moved.append([v.numpy() - b for v, b in zip(step.variables, before, strict=True)])
        depth = depth_from_top(state.model)
    for v, whole, part in zip(step.variables, *moved, strict=True):
        want = whole * 0.5 ** depth[v.path]
        np.testing.assert_allclose(part, want, rtol=1e-3, atol=1e-6, err_msg=v.path)
    assert rate_scales(config.with_(layer_decay=1.0), state.model) is None


def test_with_a_frozen_backbone_layer_decay_leaves_the_classifiers_rate_alone():
    state = new_state(Config(arch="efficientnet-test", freeze_backbone=True), num_classes=10)
    scales = rate_scales(Config(layer_decay=0.5), state.model)
    assert scales == [1.0, 1.0]  # kernel and bias


def test_float16_gradients_with_a_loss_scale_are_divided_before_their_sum(monkeypatch):
    monkeypatch.setattr("convoy.runtime.train.objective.ranks.size", lambda: 4)
    for flags, scaled, predivide in (
        ({"hvd_fp16_compression": True}, True, 4),
        ({"hvd_fp16_compression": True}, False, 1),
        ({}, True, 1),
        ({"hvd_fp16_compression": True, "gradient_predivide_factor": 2.0}, True, 2),
    ):
        assert make_exchange(Config(**flags), scaled).predivide == predivide, flags


def test_steps_per_epoch_counts_updates_whatever_the_accumulation(tiny):
    for settings, batches in (
        ({}, 7),  # 97 images in batches of 16: all of them
        ({"grad_accum_steps": 4}, 7),
        ({"steps_per_epoch": 3}, 3),
        ({"steps_per_epoch": 3, "grad_accum_steps": 4}, 12),
        ({"steps_per_epoch": 3, "optimizer_batch_size": 32}, 6),
        ({"steps_per_epoch": 3, "optimizer_batch_size": 32, "data_backend": "synthetic"}, 6),
    ):
        config = Config(data_dir=str(tiny), arch="efficientnet-test", train_batch_size=16)
        loader = build_loader(config.with_(augmenter_name="none", **settings), "train")
        assert loader.steps_per_epoch == batches, settings
        if "data_backend" not in settings:
            assert build_loader(config.with_(**settings), "validation").steps_per_epoch == 2
