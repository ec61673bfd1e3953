"""Progressive training: the settings of each epoch, computed and in a real run."""

import dataclasses

import keras
import numpy as np
import pytest

from convoy.runtime.builders.progressive_stages import of_stage, stage_settings
from convoy.runtime.settings.config import Config

# EfficientNetV2-S (arXiv:2104.00298, table 6): image size 128 to 300, magnitude 5 to 15, dropout
# 0.1 to 0.3, four stages of 350 epochs.
PAPER = Config(
    arch="efficientnetv2-s",
    max_epochs=350,
    n_stages=4,
    train_image_size=300,
    image_size=384,
    augmenter_name="randaugment",
    magnitude=15.0,
    dropout=0.3,
    base_dropout=0.1,
)


def test_stages_have_the_papers_sizes_magnitudes_and_dropout():
    stages = [stage_settings(PAPER, epoch) for epoch in (0, 88, 175, 263, 349)]
    assert [stage.number for stage in stages] == [0, 1, 2, 3, 3]
    assert [stage.image_size for stage in stages] == [128, 185, 243, 300, 300]
    assert [stage.magnitude for stage in stages] == pytest.approx([5, 25 / 3, 35 / 3, 15, 15])
    assert [stage.dropout for stage in stages] == pytest.approx([0.1, 1 / 6, 0.7 / 3, 0.3, 0.3])
    assert (
        {stage.mixup_alpha for stage in stages} == {stage.cutmix_alpha for stage in stages} == {0}
    )


@pytest.mark.parametrize(("stages", "epochs"), [(4, 350), (3, 10), (4, 4), (5, 7), (1, 9), (7, 50)])
def test_stages_have_equal_lengths_from_the_base_to_the_final_settings(stages, epochs):
    config = dataclasses.replace(
        PAPER,
        n_stages=stages,
        max_epochs=epochs,
        mixup_alpha=0.2,
        cutmix_alpha=1.0,
        base_cutmix=0.1,
    )
    settings = [stage_settings(config, epoch) for epoch in range(epochs)]
    numbers = [stage.number for stage in settings]
    assert numbers == sorted(numbers)
    lengths = np.bincount(numbers, minlength=stages)
    assert lengths.max() - lengths.min() <= 1
    last = settings[-1]
    assert (last.image_size, last.magnitude) == (300, 15.0)
    assert (last.mixup_alpha, last.cutmix_alpha, last.dropout) == (0.2, 1.0, 0.3)
    if stages > 1:  # regression: the first stage began one step late
        first = settings[0]
        assert (first.image_size, first.magnitude) == (128, 5.0)
        assert (first.mixup_alpha, first.cutmix_alpha, first.dropout) == (0.0, 0.1, 0.1)


def test_without_stages_every_epoch_has_the_flags_settings():
    config = Config(
        arch="efficientnet-b0", mixup_alpha=0.3, magnitude=7.0, augmenter_name="randaugment"
    )
    for epoch in (0, 5, 299):
        stage = stage_settings(config, epoch)
        assert (stage.image_size, stage.magnitude, stage.mixup_alpha) == (224, 7.0, 0.3)
        assert stage.dropout is None


def test_stages_name_the_magnitude_only_with_randaugment():
    assert "px, magnitude 15, mixup" in stage_settings(PAPER, 349).describe(4, 263)
    stage = stage_settings(PAPER.with_(augmenter_name="autoaugment"), 349)
    assert "magnitude" not in stage.describe(4, 263)
    assert of_stage(PAPER, stage).magnitude == PAPER.magnitude


def test_mixing_ends_at_mix_off_epoch():
    config = Config(mixup_alpha=0.2, cutmix_alpha=1.0, mix_off_epoch=3)
    alphas = [
        (stage.mixup_alpha, stage.cutmix_alpha)
        for stage in (stage_settings(config, epoch) for epoch in range(5))
    ]
    assert alphas == [(0.2, 1.0)] * 3 + [(0.0, 0.0)] * 2


class Recorder(keras.callbacks.Callback):
    """Records the image size, the labels' rank and the dropout rates of each epoch."""

    def __init__(self):
        super().__init__()
        self.trainer, self.seen = None, []

    def on_epoch_begin(self, epoch, logs=None):
        images, labels, _ = next(self.trainer.train_data.batches(epoch))
        rates = [
            layer.rate
            for layer in self.trainer.state.model.layers
            if isinstance(layer, keras.layers.Dropout)
        ]
        self.seen.append((epoch, images.shape[1], labels.shape.rank, *rates))


def test_a_run_trains_each_stage_at_its_size_and_evaluates_at_the_final_one(tiny, tmp_path, capsys):
    from convoy.runtime.train.trainer import Trainer
    from convoy.utils.logging import RunLog

    recorder = Recorder()
    config = Config(
        mode="train_and_eval",
        arch="efficientnet-test",
        data_dir=str(tiny),
        model_dir=str(tmp_path),
        max_epochs=2,
        n_stages=2,
        num_epochs_between_eval=2,
        base_img_size=16,
        train_image_size=24,
        image_size=32,
        dropout=0.4,
        base_dropout=0.0,
        mixup_alpha=0.2,
        augmenter_name="none",
        train_batch_size=16,
        eval_batch_size=16,
        warmup_epochs=1.0,
        no_checkpoints=True,
    )
    trainer = Trainer(config, RunLog(None), [recorder])
    recorder.trainer = trainer
    trainer.run()
    # Epoch, image size, rank of the labels (2 if mixed), dropout rate.
    assert recorder.seen == [(0, 16, 1, 0.0), (1, 24, 2, 0.4)]
    assert next(trainer.evaluations.data.batches(0))[0].shape[1] == 32
    out = capsys.readouterr().out
    assert "stage 1/2, from epoch 1: 16 px" in out
    assert "stage 2/2, from epoch 2: 24 px, mixup 0.2, cutmix 0, dropout 0.4" in out
