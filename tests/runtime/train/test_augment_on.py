"""Training with --augment_on device gives the same results as with --augment_on cpu."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from convoy.runtime.settings.config import Config
from convoy.runtime.train.loss_scale import LossScale
from convoy.runtime.train.not_finite import first_not_finite
from convoy.runtime.train.step import Step, TrainState
from convoy.runtime.train.trainer import Trainer
from convoy.utils.logging import RunLog
from convoy.utils.optim.losses import cross_entropy
from convoy.utils.optim.optimizers import make_optimizer


class Losses(keras.callbacks.Callback):
    """Records the mean loss of each epoch."""

    def __init__(self):
        super().__init__()
        self.losses = []

    def on_epoch_end(self, epoch, logs=None):
        self.losses.append(logs["loss"])


def trained(tiny, where, **changes):
    """Trains an epoch of 4 updates, 2 × 16 images each; returns losses, weights and trainer."""
    config = Config(
        mode="train",
        arch="efficientnet-test",
        data_dir=str(tiny),
        max_epochs=1,
        train_image_size=24,
        image_size=24,
        augmenter_name="randaugment",
        randaugment_space="timm",
        num_layers=1,
        random_erasing=0.5,
        mixup_alpha=0.4,
        cutmix_alpha=1.0,
        train_batch_size=16,
        grad_accum_steps=2,
        warmup_epochs=0.0,
        no_checkpoints=True,
        augment_on=where,
    )
    recorder = Losses()
    keras.utils.set_random_seed(0)
    trainer = Trainer(config.with_(**changes), RunLog(None), [recorder])
    trainer.run()
    weights = {v.path: np.asarray(v.value).copy() for v in trainer.state.model.weights}
    return recorder.losses, weights, trainer


STAGES = {"n_stages": 2, "max_epochs": 2, "base_img_size": 16}  # the first one without mixing


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, STAGES], ids=str)
def test_augmenting_on_the_device_gives_the_same_bits_as_on_the_cpu(tiny, capsys, changes):
    """The last update is padded with a batch of weight 0."""
    wanted_losses, wanted, host = trained(tiny, "cpu", **changes)
    losses, weights, device = trained(tiny, "device", **changes)
    assert host.train_data.prepare is None
    assert device.train_data.prepare is not None
    assert losses == wanted_losses
    for path, value in wanted.items():
        np.testing.assert_array_equal(weights[path], value, err_msg=path)


@pytest.mark.slow
def test_with_xla_augmenting_on_the_device_differs_by_rounding_only(tiny, capsys):
    options = {"use_xla": True, "color_jitter": [0.3, 0.3, 0.3]}
    wanted_losses, wanted, _ = trained(tiny, "cpu", **options)
    losses, weights, _ = trained(tiny, "device", **options)
    np.testing.assert_allclose(losses, wanted_losses, rtol=1e-5)
    for path, value in wanted.items():
        np.testing.assert_allclose(weights[path], value, rtol=1e-3, atol=1e-4, err_msg=path)


def test_the_search_for_nan_runs_on_images_prepared_on_the_device():
    inputs = keras.layers.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3, name="first")(inputs))
    model.get_layer("first").kernel.assign(np.full((4, 3), 3e38))
    optimizer = make_optimizer("momentum")
    optimizer.build(model.trainable_variables)
    state = TrainState(model, optimizer, LossScale("dynamic", False))
    loss = partial(cross_entropy, smoothing=0.0)
    step = Step(state, loss=loss, prepare=lambda parts: parts["a"] + parts["b"])
    batch = {"a": tf.zeros([2, 4]), "b": tf.ones([2, 4])}, tf.constant([0, 1]), tf.ones([2])
    assert not step([batch], 0.1).finite_loss
    assert first_not_finite(step, [batch]) == "the output of layer first"


@pytest.mark.slow
def test_two_ranks_have_the_same_losses_on_device_and_cpu(
    convoy, small_run, tiny, tmp_path, log_lines
):
    flags = (*small_run, "--mode", "train", "--max_epochs", "1", "--warmup_epochs", "0")
    flags += ("--data_dir", tiny, "--train_batch_size", "8", "--mixup_alpha", "0.4")
    flags += ("--augmenter_name", "randaugment", "--random_erasing", "0.5")
    losses = {}
    for where in ("cpu", "device"):
        folder = tmp_path / where
        convoy(*flags, "--augment_on", where, "--model_dir", folder, np=2)
        lines = [line for line in log_lines(folder / "log.json") if len(line.get("step", "")) == 2]
        losses[where] = [line["data"]["train.loss"] for line in lines]
    assert len(losses["cpu"]) == 7
    np.testing.assert_allclose(losses["device"], losses["cpu"], rtol=1e-6)
