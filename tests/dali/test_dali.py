"""DALI on the CPU gives what tf.data gives: the same examples, decisions, labels; like pixels."""

import importlib
import io
import logging

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from convoy.dataloader.augment.augmenter import make_augmenter
from convoy.dataloader.errors import DataError, TooManyBadExamples
from convoy.dataloader.images.crops import UNIFORMS, EvalCrop, crop_window, flips
from convoy.dataloader.loader import CROP, Loader
from convoy.dataloader.options import InputOptions
from convoy.dataloader.philox import uniforms
from convoy.dataloader.sources.find import find_source
from convoy.runtime.run_folder.checkpoint import complete_checkpoints
from main import main

pytest.importorskip("nvidia.dali", reason="DALI is not installed: run make test-dali")
DaliLoader = importlib.import_module("convoy.dataloader.dali").DaliLoader


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def photograph(i):
    """A smooth JPEG of about 90 × 100 pixels; every fifth is grey."""
    pixels = np.random.default_rng(i).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    size = (90 + i % 19, 110 - i % 17)
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    (image.convert("L") if i % 5 == 4 else image).save(stream, "JPEG", quality=90)
    return stream.getvalue()


@pytest.fixture(scope="session")
def data(tmp_path_factory, writers):
    """53 photographs, a prime number, with label `i % 10`."""
    folder = tmp_path_factory.mktemp("photographs")
    writers.dataset(folder, [(photograph(i), i % 10) for i in range(53)], [])
    return folder


def options(**changes):
    given = {"image_size": 48, "batch_size": 8, "num_classes": 10, "num_workers": 2}
    return InputOptions(**(given | changes))


def pair(data, training=True, rank=0, world=1, **changes):
    """tf.data's loader and DALI's, of the same examples."""
    source = find_source(str(data), "train")
    place = {"training": training, "rank": rank, "world": world}
    return [kind(source, options(**changes), **place) for kind in (Loader, DaliLoader)]


def collect(loader, epoch=0, offset=0):
    batches = [[t.numpy() for t in batch] for batch in loader.batches(epoch, offset)]
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def assert_alike(ours, theirs, level=1.0):
    """Equal labels, weights, shapes and types; images differ by less than a level on average."""
    for one, other in zip(ours, theirs, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
    assert (ours[1] == theirs[1]).all()
    assert (ours[2] == theirs[2]).all()
    difference = np.abs(ours[0].astype(np.float64) - theirs[0])
    assert difference.mean((1, 2, 3)).max() < level


TRAINING = [
    {},
    {"hflip": 0.0},
    {"interpolation": "bicubic"},
    {"interpolation": "random"},
    {"steps_per_epoch": 5},
    {"mixup_alpha": 0.2, "cutmix_alpha": 1.0},
]


@pytest.mark.parametrize("changes", TRAINING, ids=str)
def test_training_batches(data, changes):
    ours, theirs = pair(data, **changes)
    assert ours.steps_per_epoch == theirs.steps_per_epoch
    for epoch in (0, 3):
        assert_alike(collect(ours, epoch), collect(theirs, epoch))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("method", ["crop", "resize"])
def test_evaluation_pixels(data, method, antialias, interpolation):
    crop = EvalCrop(8, method, interpolation, antialias)
    assert_alike(*map(collect, pair(data, training=False, eval_crop=crop)))


@pytest.mark.parametrize("training", [True, False])
def test_three_ranks_share_an_epoch_without_loss_or_repetition(data, training):
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
    # Labels repeat; that no example does is seen by the pixels of a crop without randomness.
    if not training:
        images = np.concatenate([p[0] for p in parts])[weights > 0]
        assert len(np.unique(images.reshape(53, -1), axis=0)) == 53


@pytest.mark.parametrize("offset", [8, 13, 52])
def test_resume_is_the_suffix_to_the_bit(data, offset):
    changes = {"augmenter": "autoaugment", "interpolation": "random"}
    whole = collect(pair(data, **changes)[1], 2)
    later = collect(pair(data, **changes)[1], 2, offset)
    real = later[2] > 0
    assert real.sum() == 53 - offset
    for one, other in zip(whole, later, strict=True):
        assert (one[offset:53] == other[real]).all()


def test_batches_stay_what_they_are(data):
    """They lie in DALI's memory, which it must not use again while they live."""
    loader = pair(data)[1]
    expected = collect(loader)
    kept = list(loader.batches(0))
    for epoch in range(1, 4):
        collect(loader, epoch)
    assert (np.concatenate([images.numpy() for images, _, _ in kept]) == expected[0]).all()


def test_an_abandoned_epoch_and_two_at_once(data):
    loader = pair(data)[1]
    expected = collect(loader, 0), collect(loader, 1)
    for _ in range(3):
        next(loader.batches(0))
    for step, batches in enumerate(zip(loader.batches(0), loader.batches(1), strict=True)):
        for (images, _, _), whole in zip(batches, expected, strict=True):
            assert (images.numpy() == whole[0][8 * step : 8 * step + 8]).all()


def _plans(loader, epoch, name):
    """One part of what DALI is handed, for the examples of an epoch's first batch."""
    place = list(loader._inputs).index(name)
    encoded, _, seeds, _ = loader._read(epoch, 0)
    plans = [
        loader._plan(tf.constant(e), tf.constant(s)) for e, s in zip(encoded, seeds, strict=True)
    ]
    return np.stack([plan[place].numpy() for plan in plans])


def test_crops_and_flips_are_those_of_tf_data(data):
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
    """The number that `photograph` was called with: two shards were dealt in turn."""
    first = -(-loader.num_examples // 2)
    return 2 * number if number < first else 2 * (number - first) + 1


def test_half_of_the_images_are_flipped(data):
    loader = pair(data, batch_size=53)[1]
    flipped = np.concatenate([_plans(loader, epoch, "flip") for epoch in range(20)])
    # 1,060 draws: four standard deviations.
    assert abs(flipped.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(flipped))


@pytest.mark.parametrize("augmenter", ["autoaugment", "randaugment", "trivialaugment"])
def test_policies_are_those_of_tf_data_on_equal_pixels(data, augmenter):
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


def test_erasing_and_jitter_are_those_of_tf_data(data):
    changes = {"random_erasing": 1.0, "color_jitter": 0.4}
    ours, theirs = map(collect, pair(data, **changes))
    assert_alike(ours, theirs, level=3.0)  # jitter magnifies what decoders differ by
    plain = collect(pair(data, random_erasing=0.0)[1])
    assert (plain[0] != theirs[0]).any((1, 2, 3)).all()


def test_augmentation_on_the_device_gives_the_same_images(data):
    changes = {"augmenter": "randaugment", "random_erasing": 0.5, "mixup_alpha": 0.4}
    host, device = (pair(data, augment_on=on, **changes)[1] for on in ("cpu", "device"))
    for one, (planned, labels, weights) in zip(host.batches(1), device.batches(1), strict=True):
        assert (one[0].numpy() == device.prepare(planned).numpy()).all()
        assert (one[1].numpy() == labels.numpy()).all()
        assert (one[2].numpy() == weights.numpy()).all()


def save(image, kind, **settings):
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


def unusual():
    """Name → bytes of images that decoders read in different ways."""
    pixels = np.asarray(Image.open(io.BytesIO(save(Image.linear_gradient("L"), "PNG"))))
    rgb = Image.fromarray(np.stack([pixels, pixels.T, pixels[::-1]], 2)).resize((80, 60))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees
    deep = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    clear = rgb.convert("RGBA")
    clear.putalpha(0)
    return {
        "CMYK": save(rgb.convert("CMYK"), "JPEG"),
        "grey": save(rgb.convert("L"), "JPEG"),
        "progressive": save(rgb, "JPEG", progressive=True),
        "without subsampling": save(rgb, "JPEG", subsampling=0),
        "turned": save(rgb, "JPEG", exif=exif),
        "PNG": save(rgb, "PNG"),
        "palette": save(rgb.quantize(16), "PNG"),
        "16 bits": save(deep, "PNG"),
        "transparent": save(clear, "PNG"),
        "GIF": save(rgb.quantize(16), "GIF"),
        "BMP": save(rgb, "BMP"),
    }


@pytest.mark.parametrize("training", [True, False])
def test_unusual_images(tmp_path, writers, training):
    images = unusual()
    writers.dataset(tmp_path / "data", [(image, 0) for image in images.values()], [])
    ours, theirs = map(collect, pair(tmp_path / "data", training))
    assert_alike(ours, theirs)


@pytest.mark.parametrize("method", ["crop", "resize", "training"])
def test_turned_images_are_decoded_here_to_the_same_pixels(tmp_path, writers, method):
    rgb = Image.open(io.BytesIO(unusual()["PNG"]))
    images = []
    for number in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = number
        images += [save(rgb, kind, exif=exif) for kind in ("JPEG", "PNG")]
    writers.dataset(tmp_path / "data", [(image, 0) for image in images], [])
    crop = EvalCrop(8, "crop" if method == "training" else method, exif_orientation="apply")
    changes = {"eval_crop": crop, "exif_orientation": "apply"}
    ours, theirs = map(collect, pair(tmp_path / "data", method == "training", **changes))
    assert_alike(ours, theirs)


def damaged(tmp_path, writers, which, damage=lambda image: image[: len(image) // 3]):
    images = [photograph(i) for i in range(20)]
    for i in which:
        images[i] = damage(images[i])
    # One shard, so that examples keep their numbers.
    return writers.dataset(tmp_path / "data", [(image, 3) for image in images], [], shards=1)


@pytest.mark.parametrize(
    "damage",
    [lambda image: image[: len(image) // 3], lambda image: b"", lambda image: b"RIFF0000WEBPVP8 "],
    ids=["truncated", "empty", "WebP"],
)
def test_a_bad_example_keeps_its_slot(tmp_path, writers, caplog, damage):
    folder = damaged(tmp_path, writers, [4, 17], damage)
    # The whole image is the crop: a crop above the cut decodes.
    changes = {"max_bad_examples": 2, "crop_area": (1.0, 1.0), "augmenter": "randaugment"}
    ours, theirs = pair(folder, **changes)
    with caplog.at_level(logging.WARNING, "convoy.data"):
        found = collect(theirs)
    assert sorted(theirs.bad_examples) == [4, 17]
    assert caplog.text.count("weight 0") == 2
    assert_alike(collect(ours), found, level=8.0)  # RandAugment magnifies differences
    assert theirs.bad_examples == ours.bad_examples
    assert found[2][:20].sum() == 18
    assert collect(theirs, 1)[2].sum() == 18


def test_too_many_bad_examples(tmp_path, writers):
    folder = damaged(tmp_path, writers, [4, 17])
    with pytest.raises(TooManyBadExamples, match="--max_bad_examples 1 allows 1"):
        collect(pair(folder, max_bad_examples=1, crop_area=(1.0, 1.0))[1])
    with pytest.raises(DataError, match="record at byte"):
        collect(pair(folder, training=False)[1])


@pytest.mark.parametrize("least", [0.05, 1.0])
def test_damaged_images_are_refused_as_by_tf_data(tmp_path, writers, least):
    """Bytes anywhere but in the header are replaced, in 60 of 120 images."""
    rng = np.random.default_rng(7)
    images = [photograph(i % 53) for i in range(120)]
    for i in range(0, 120, 2):
        image = bytearray(images[i])
        for place in rng.integers(200, len(image), rng.integers(1, 6)):
            image[place] = rng.integers(256)
        images[i] = bytes(image[: rng.integers(300, len(image))] if i % 8 == 0 else image)
    folder = writers.dataset(tmp_path / "data", [(image, 3) for image in images], [], shards=1)
    changes = {"crop_area": (least, 1.0), "crop_ratio": (0.5, 2.0), "max_bad_examples": 0.9}
    ours, theirs = pair(folder, **changes)
    expected, found = collect(ours), collect(theirs)
    # DALI puts up with damage here and there that TensorFlow refuses, never the other way round.
    assert theirs.bad_examples.items() <= ours.bad_examples.items()
    assert 5 < len(ours.bad_examples) < 60
    assert len(ours.bad_examples) - len(theirs.bad_examples) <= 2
    both = (expected[2] > 0) & (found[2] > 0)
    assert_alike(*([part[both] for part in loader] for loader in (expected, found)))


def test_what_dali_alone_refuses_is_decoded_by_tensorflow(data, monkeypatch, caplog):
    """No such file is known, so DALI is handed other bytes in some images' place."""
    run, refused = DaliLoader._run, {photograph(8), photograph(31)}

    def refuse(self, encoded, *rest):
        return run(self, [b"\xff\xd8" if e in refused else e for e in encoded], *rest)

    ours, theirs = pair(data, training=False)
    monkeypatch.setattr(DaliLoader, "_run", refuse)
    with caplog.at_level(logging.INFO, "convoy.data"):
        found = collect(theirs)
    assert_alike(collect(ours), found)
    assert caplog.text.count("DALI does not decode it") == 2
    assert not theirs.bad_examples


def test_a_failure_that_is_no_images_fault(data, monkeypatch):
    loader = pair(data)[1]

    def fail(self, *_):
        if len(_[0]) > 1:
            raise RuntimeError("out of something")
        return np.zeros((1, 48, 48, 3), np.uint8)

    monkeypatch.setattr(DaliLoader, "_run", fail)
    with pytest.raises(DataError, match=r"DALI failed.*--data_backend tfdata"):
        collect(loader)


def test_an_interpolation_that_is_not_there(data):
    with pytest.raises(DataError, match="--data_backend tfdata"):
        pair(data, interpolation="lanczos3")


def test_a_run_from_beginning_to_end(small_run, tiny, tmp_path, log_lines):
    """Training resumed in its middle is training, and evaluation is tf.data's."""

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


def test_two_ranks_train_on_the_same_images_as_one(convoy, small_run, tiny, tmp_path, log_lines):
    """One update on 16 images, eight a rank: the mean loss is that of one process.

    Batch norm learns from each rank's own images, so ranks normalise together here.
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
