"""DALI on the CPU gives the same examples, random choices and labels as tf.data.

Pixels differ a little because the decoders differ.
"""

import numpy as np
import pytest
import tensorflow as tf

from convoy.dataloader.augment.augmenter import make_augmenter
from convoy.dataloader.images.crops import UNIFORMS, crop_window, flips
from convoy.dataloader.images.eval_crop import EvalCrop
from convoy.dataloader.loader import CROP
from convoy.dataloader.philox import uniforms
from convoy.runtime.run_folder.checkpoint import complete_checkpoints
from main import main

pytest.importorskip("nvidia.dali", reason="DALI is not installed: run make test-dali")
from tests.dali.pairs import assert_alike, pair
from tests.dataloader.batches import collect

TRAINING = [
    {},
    {"hflip": 0.0},
    {"interpolation": "bicubic"},
    {"interpolation": "random"},
    {"steps_per_epoch": 5},
    {"mixup_alpha": 0.2, "cutmix_alpha": 1.0},
]


@pytest.mark.parametrize("changes", TRAINING, ids=str)
def test_training_batches_are_those_of_tf_data(data, changes):
    ours, theirs = pair(data, **changes)
    assert ours.steps_per_epoch == theirs.steps_per_epoch
    for epoch in (0, 3):
        assert_alike(collect(ours, epoch), collect(theirs, epoch))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("method", ["crop", "resize", "squash"])
def test_evaluation_pixels_are_close_to_tf_datas(data, method, antialias, interpolation):
    crop = EvalCrop(8, method, interpolation, antialias)
    assert_alike(*map(collect, pair(data, training=False, eval_crop=crop)))


@pytest.mark.parametrize("training", [True, False])
def test_three_ranks_together_read_every_example_once(data, training):
    loaders = [pair(data, training, rank, 3, batch_size=4) for rank in range(3)]
    parts = []
    for ours, theirs in loaders:
        batches = collect(theirs, 1)
        assert_alike(collect(ours, 1), batches)
        parts.append(batches)
    _, labels, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
    assert weights.sum() == 53
    expected = np.bincount([i % 10 for i in range(53)])
    assert np.bincount(labels, weights).tolist() == expected.tolist()
    # Labels repeat, so compare pixels: evaluation crops are not random.
    if not training:
        images = np.concatenate([p[0] for p in parts])[weights > 0]
        assert len(np.unique(images.reshape(53, -1), axis=0)) == 53


@pytest.mark.parametrize("offset", [8, 13, 52])
def test_resuming_within_an_epoch_yields_the_same_bits_as_the_whole_epoch(data, offset):
    changes = {"augmenter": "autoaugment", "interpolation": "random"}
    whole = collect(pair(data, **changes)[1], 2)
    later = collect(pair(data, **changes)[1], 2, offset)
    real = later[2] > 0
    assert real.sum() == 53 - offset
    for one, other in zip(whole, later, strict=True):
        assert (one[offset:53] == other[real]).all()


def test_earlier_batches_do_not_change_while_later_ones_are_read(data):
    """They lie in DALI's memory, which DALI must not reuse while a batch is in use."""
    loader = pair(data)[1]
    expected = collect(loader)
    kept = list(loader.batches(0))
    for epoch in range(1, 4):
        collect(loader, epoch)
    assert (np.concatenate([images.numpy() for images, _, _ in kept]) == expected[0]).all()


def test_an_abandoned_epoch_or_a_parallel_one_changes_no_batch(data):
    loader = pair(data)[1]
    expected = collect(loader, 0), collect(loader, 1)
    for _ in range(3):
        next(loader.batches(0))
    for step, batches in enumerate(zip(loader.batches(0), loader.batches(1), strict=True)):
        for (images, _, _), whole in zip(batches, expected, strict=True):
            assert (images.numpy() == whole[0][8 * step : 8 * step + 8]).all()


def _plans(loader, epoch, name):
    """Returns one input of the DALI pipeline for the examples of an epoch's first batch."""
    place = list(loader._inputs).index(name)
    encoded, _, seeds, _ = loader._read(epoch, 0)
    plans = [
        loader._plan(tf.constant(e), tf.constant(s)) for e, s in zip(encoded, seeds, strict=True)
    ]
    return np.stack([plan[place].numpy() for plan in plans])


def test_crops_and_flips_equal_tf_datas(data):
    loader = pair(data, batch_size=53)[1]
    given = loader.options
    for epoch in range(2):
        indices, seeds = loader.drawn(epoch, 0)
        window = np.concatenate(
            [_plans(loader, epoch, "begin"), _plans(loader, epoch, "extent")], 1
        )
        flip = _plans(loader, epoch, "flip")
        for slot, index in enumerate(indices.tolist()):
            drawn = uniforms([UNIFORMS], tf.constant(seeds[slot, CROP]))
            width, height = 90 + index_of(loader, index) % 19, 110 - index_of(loader, index) % 17
            shape = tf.constant([height, width])
            wanted = crop_window(shape, drawn, given.crop_area, given.crop_ratio)
            assert window[slot].tolist() == wanted.numpy().tolist()
            assert bool(flip[slot]) == bool(flips(drawn, 0.5))


def index_of(loader, number):
    """Returns the `i` of `photograph(i)` for an example: the two shards were filled in turn."""
    first = -(-loader.num_examples // 2)
    return 2 * number if number < first else 2 * (number - first) + 1


def test_half_of_the_images_are_flipped(data):
    loader = pair(data, batch_size=53)[1]
    flipped = np.concatenate([_plans(loader, epoch, "flip") for epoch in range(20)])
    # 1,060 draws; allow four standard deviations.
    assert abs(flipped.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(flipped))


@pytest.mark.parametrize("augmenter", ["autoaugment", "randaugment", "trivialaugment"])
def test_policies_on_equal_pixels_give_the_bits_of_tf_data(data, augmenter):
    plain, theirs = (pair(data, augmenter=name)[1] for name in (None, augmenter))
    augment = make_augmenter(augmenter, image_size=48)
    before, after = collect(plain, 1), collect(theirs, 1)
    seeds = np.concatenate([plain.drawn(1, offset)[1] for offset in range(0, 53, 8)])
    changed = 0
    for image, seed, found in zip(before[0], seeds[:, 1], after[0], strict=True):
        wanted = augment(tf.constant(image), tf.constant(seed)).numpy()
        assert (wanted == found).all()
        changed += (wanted != image).any()
    assert changed > 20


def test_erasing_and_jitter_match_tf_data(data):
    changes = {"random_erasing": 1.0, "color_jitter": 0.4}
    ours, theirs = map(collect, pair(data, **changes))
    assert_alike(ours, theirs, level=3.0)  # jitter amplifies the decoders' differences
    plain = collect(pair(data, random_erasing=0.0)[1])
    assert (plain[0] != theirs[0]).any((1, 2, 3)).all()


def test_augmentation_on_the_device_gives_the_same_bits_as_on_the_host(data):
    changes = {"augmenter": "randaugment", "random_erasing": 0.5, "mixup_alpha": 0.4}
    host, device = (pair(data, augment_on=on, **changes)[1] for on in ("cpu", "device"))
    for one, (planned, labels, weights) in zip(host.batches(1), device.batches(1), strict=True):
        assert (one[0].numpy() == device.prepare(planned).numpy()).all()
        assert (one[1].numpy() == labels.numpy()).all()
        assert (one[2].numpy() == weights.numpy()).all()


def test_a_resumed_dali_run_ends_with_the_same_weights_and_evaluates_like_tf_data(
    small_run, tiny, tmp_path, log_lines
):

    def run(*args):
        assert main([str(arg) for arg in args]) == 0

    dali = (*small_run, "--data_dir", tiny, "--data_backend", "dali-cpu", "--max_epochs", "2")
    dali += ("--warmup_epochs", "1")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(*dali, "--model_dir", whole)
    run(*dali, "--model_dir", parts, "--run_epochs", "1")
    run(*dali, "--model_dir", parts, "--resume_checkpoint")
    last = [complete_checkpoints(folder)[-1] for folder in (whole, parts)]
    assert last[0].name == last[1].name == "step-00000014"
    assert len({(folder / "model.safetensors").read_bytes() for folder in last}) == 1
    losses = []
    for more in ((), ("--use_dali_eval",)):
        run("--mode", "eval", "--model_dir", whole, "--data_dir", tiny, *more)
        figures = [line for line in log_lines(whole / "log.json") if line.get("step") == []]
        losses.append(figures[-1]["data"]["eval_loss"])
    assert losses[0] == pytest.approx(losses[1], abs=0.01)


def test_two_ranks_have_the_same_loss_as_one_process_on_the_same_images(
    convoy, small_run, tiny, tmp_path, log_lines
):
    """Compares one update on 16 images with one on eight images per rank.

    Batch norm is synchronised; otherwise each rank would normalise over its own images.
    """
    flags = (*small_run, "--data_dir", tiny, "--data_backend", "dali-cpu", "--mode", "train")
    flags += ("--prof", "1", "--batch_norm", "syncbn", "--dropout", "0", "--stochastic_depth", "0")
    one, two = tmp_path / "one", tmp_path / "two"
    convoy(*flags, "--model_dir", one)
    convoy(*flags, "--model_dir", two, "--train_batch_size", "8", np=2)
    losses = [
        next(
            line["data"]["train.loss"]
            for line in log_lines(folder / "log.json")
            if len(line.get("step", "")) == 2
        )
        for folder in (one, two)
    ]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
