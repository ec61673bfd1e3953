"""Batches from real files: each example once, on any number of ranks, and errors."""

import io
import logging
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from convoy.dataloader.errors import DataError, TooManyBadExamples
from convoy.dataloader.images.crops import eval_decode
from convoy.dataloader.images.eval_crop import EvalCrop
from convoy.dataloader.loader import Loader, build_dataset
from convoy.dataloader.options import InputOptions
from convoy.dataloader.sources.find import find_source
from tests import records
from tests.dataloader.batches import collect
from tests.dataloader.packing import encoded


def jpeg(i):
    pixels = np.random.default_rng(i).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((40 + i % 9, 50 - i % 7), Image.Resampling.BICUBIC)
    return encoded(image, quality=90)


def write(folder, count=50, change=None, split="train", files=2):
    """Writes examples `i` with label `i % 10`; `change(i, image, label)` may replace them."""
    folder.mkdir(exist_ok=True)
    examples = []
    for i in range(count):
        image, label = change(i, jpeg(i), i % 10) if change else (jpeg(i), i % 10)
        examples.append(records.example({"image/encoded": image, "image/class/label": label + 1}))
    for number in range(files):
        part = examples[number * count // files : (number + 1) * count // files]
        records.write(folder / f"{split}-{number:05d}-of-{files:05d}", part)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("examples"))


def options(**changes):
    given = {"image_size": 24, "batch_size": 8, "num_classes": 10, "num_workers": 2}
    return InputOptions(**(given | changes))


def test_an_epoch_has_every_example_once_in_batches_of_fixed_shape(data):
    loader = build_dataset(str(data), "train", options(), training=True)
    assert (loader.num_examples, loader.steps_per_epoch, loader.global_batch) == (50, 7, 8)
    assert loader.class_names is None
    count = np.zeros(10)
    batches = list(loader.batches(0))
    assert len(batches) == 7
    for images, labels, weights in batches:
        assert (images.shape, images.dtype) == ((8, 24, 24, 3), tf.uint8)
        assert (labels.shape, labels.dtype) == ((8,), tf.int32)
        assert (weights.shape, weights.dtype) == ((8,), tf.float32)
        np.add.at(count, labels.numpy(), weights.numpy())
    assert (count == 5).all()
    assert batches[-1][2].numpy().tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    assert (batches[-1][0].numpy() != 128).any()  # padding consists of real images


def test_epochs_differ_and_are_repeatable(data):
    loader = build_dataset(str(data), "train", options(), training=True)
    again = build_dataset(str(data), "train", options(num_workers=None), training=True)
    first, second = collect(loader, 0), collect(loader, 1)
    assert (first[0] != second[0]).any()
    for one, other in zip(second, collect(again, 1), strict=True):
        assert (one == other).all()
    other_seed = build_dataset(str(data), "train", options(seed=1), training=True)
    assert (collect(other_seed)[0] != first[0]).any()


@pytest.mark.parametrize("augmenter", [None, "randaugment"])
def test_two_ranks_together_read_the_batches_of_one(data, augmenter):
    alone = build_dataset(str(data), "train", options(augmenter=augmenter), training=True)
    ranks = [
        build_dataset(
            *(str(data), "train", options(batch_size=4, augmenter=augmenter)),
            training=True,
            rank=rank,
            world=2,
        )
        for rank in range(2)
    ]
    assert {loader.steps_per_epoch for loader in ranks} == {7}
    for step, parts in enumerate(zip(*(loader.batches(2) for loader in ranks), strict=True)):
        if step == 0:
            whole = alone.batches(2)
        for one, *two in zip(next(whole), *parts, strict=True):
            joined = np.stack([t.numpy() for t in two], 1).reshape(one.shape)
            assert (joined == one.numpy()).all()


@pytest.mark.parametrize("offset", [8, 24, 13])
def test_resuming_within_an_epoch_yields_the_same_bits(data, offset):
    loader = build_dataset(str(data), "train", options(), training=True)
    images, labels, _ = collect(loader, 1)
    later = collect(loader, 1, offset)
    real = later[2] > 0
    assert real.sum() == 50 - offset == len(labels[offset:50])
    assert (later[0][real] == images[offset:50]).all()
    assert (later[1][real] == labels[offset:50]).all()
    assert len(real) == 8 * loader.steps_from(offset)
    assert list(loader.batches(1, 50)) == []


def test_steps_per_epoch_divide_the_same_order_of_examples(data):
    loader = build_dataset(str(data), "train", options(steps_per_epoch=3), training=True)
    assert loader.steps_per_epoch == 3
    parts = [collect(loader, epoch) for epoch in range(3)]
    assert all((weights == 1).all() for _, _, weights in parts)
    whole = collect(build_dataset(str(data), "train", options(), training=True), 0)
    joined = np.concatenate([images for images, _, _ in parts])
    assert (joined[:50] == whole[0][:50]).all()


@pytest.mark.parametrize("world", [1, 3])
def test_evaluation_reads_each_example_once_in_file_order(data, world):
    crop = EvalCrop(8)
    loaders = [
        build_dataset(
            *(str(data), "train", options(eval_crop=crop, steps_per_epoch=2)),
            training=False,
            rank=rank,
            world=world,
        )
        for rank in range(world)
    ]
    parts = [collect(loader) for loader in loaders]
    assert len({len(weights) for _, _, weights in parts}) == 1
    images, labels, weights = (
        np.stack(p, 1).reshape(-1, *p[0].shape[1:]) for p in zip(*parts, strict=True)
    )
    assert weights.sum() == 50
    assert (weights[:50] == 1).all()
    assert labels[:50].tolist() == [i % 10 for i in range(50)]
    for i in range(0, 50, 9):
        assert (images[i] == eval_decode(tf.constant(jpeg(i)), 24, crop).numpy()).all()


def test_class_folders_with_jpeg_and_png_are_read(tmp_path):
    for name, kind in [("ant", "JPEG"), ("bee", "PNG")]:
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(5):
            image = Image.open(io.BytesIO(jpeg(i)))
            image.save(tmp_path / "train" / name / f"{i}.{kind.lower()}", kind)
    loader = build_dataset(str(tmp_path), "train", options(num_classes=None), training=True)
    assert loader.class_names == ["ant", "bee"]
    assert loader.num_classes == 2
    _, labels, weights = collect(loader)
    assert np.bincount(labels, weights).tolist() == [5, 5]


def test_mixing_gives_float_images_and_soft_labels(data):
    loader = build_dataset(str(data), "train", options(mixup_alpha=0.2), training=True)
    for images, labels, weights in loader.batches(0):
        assert (images.shape, images.dtype) == ((8, 24, 24, 3), tf.float32)
        assert (labels.shape, labels.dtype) == ((8, 10), tf.float32)
        assert weights.shape == (8,)
        assert np.allclose(labels.numpy().sum(1), 1, atol=1e-5)


def broken(*which):
    def change(i, image, label):
        return (image[: len(image) // 3] if i in which else image), label

    return change


def test_a_bad_training_example_keeps_its_slot_with_weight_0(tmp_path, caplog):
    good = build_dataset(str(write(tmp_path / "good")), "train", options(), training=True)
    folder = write(tmp_path / "bad", change=broken(31, 4))
    loader = build_dataset(str(folder), "train", options(max_bad_examples=2), training=True)
    with caplog.at_level(logging.WARNING, "convoy.data"):
        images, labels, weights = collect(loader)
    assert sorted(loader.bad_examples) == [4, 31]
    second = folder / "train-00001-of-00002"
    offset = loader.source.describe(31).split("byte ")[1]
    assert f"{second}, record at byte {offset}: " in loader.bad_examples[31]
    assert "\n" not in loader.bad_examples[31]
    assert len(caplog.records) == 2
    assert str(second) in caplog.text
    expected = collect(good)
    zero = np.flatnonzero(weights[:50] == 0)
    assert len(zero) == 2
    assert (images[zero] == 128).all()
    assert (labels[zero] == 0).all()
    kept = weights > 0
    assert (
        images[kept] == expected[0][kept]
    ).all()  # the other examples keep their slots and pixels
    caplog.clear()
    # The example is known now: no search, no second message.
    assert collect(loader, 1)[2].sum() == 48
    assert not caplog.records


def test_more_bad_training_examples_than_allowed_raise_an_error(tmp_path):
    folder = write(tmp_path / "bad", change=broken(1, 2, 40))
    for limit, allowed in [(0, 0), (0.001, 0), (2, 2), (0.04, 2)]:
        loader = build_dataset(str(folder), "train", options(max_bad_examples=limit), training=True)
        with pytest.raises(TooManyBadExamples) as caught:
            collect(loader)
        text = str(caught.value)
        assert f"--max_bad_examples {limit} allows {allowed}." in text
        assert f"{folder}/train-0000" in text
        assert "record at byte" in text
        assert re.match("(1 of 50 training examples is|[23] of 50 .* are) unreadable", text)
        assert text.endswith("left out, however many there are:\n  --max_bad_examples 50")
    loader = build_dataset(str(folder), "train", options(max_bad_examples=0.06), training=True)
    assert collect(loader)[2].sum() == 47


def test_a_bad_evaluation_example_raises_an_error_with_its_place(tmp_path):
    folder = write(tmp_path / "bad", change=broken(31), split="validation")
    loader = build_dataset(str(folder), "validation", options(), training=False)
    with pytest.raises(DataError, match=r"validation-00001-of-00002, record at byte \d+"):
        collect(loader)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("wrong", [-1, 10])
def test_a_label_out_of_range_raises_an_error_with_its_place(tmp_path, training, wrong):
    def change(i, image, label):
        return image, wrong if i == 33 else label

    folder = write(tmp_path / "bad", change=change)
    loader = build_dataset(str(folder), "train", options(max_bad_examples=9), training=training)
    with pytest.raises(DataError, match=rf"byte \d+: .*label is {wrong + 1}.* correct") as caught:
        collect(loader)
    assert not isinstance(caught.value, TooManyBadExamples)


def test_a_file_deleted_after_the_start_counts_as_a_bad_example(tmp_path):
    for name in "ab":
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(8):
            (tmp_path / "train" / name / f"{i}.jpg").write_bytes(jpeg(i))
    loader = build_dataset(str(tmp_path), "train", options(max_bad_examples=1), training=True)
    (tmp_path / "train" / "b" / "3.jpg").unlink()
    assert collect(loader)[2].sum() == 15
    (message,) = loader.bad_examples.values()
    assert message.startswith(str(tmp_path / "train" / "b" / "3.jpg"))
    assert "No such file" in message


def test_an_error_that_no_example_causes_is_raised_unchanged(data, monkeypatch):
    loader = build_dataset(str(data), "train", options(), training=True)

    def fail(*_):
        raise tf.errors.InvalidArgumentError(None, None, "not the data's fault")

    monkeypatch.setattr(loader, "_read", fail)
    with pytest.raises(tf.errors.OpError, match="not the data's fault"):
        collect(loader)


def test_the_number_of_classes_must_be_known_and_large_enough(data, tmp_path):
    with pytest.raises(DataError, match="set --num_classes"):
        build_dataset(str(data), "train", options(num_classes=None), training=True)
    folder = write(tmp_path / "named")
    (folder / "labels.txt").write_text("".join(f"n{i}\n" for i in range(10)))
    with pytest.raises(DataError, match="--num_classes 9 is less than the 10 classes"):
        build_dataset(str(folder), "train", options(num_classes=9), training=True)
    assert build_dataset(str(folder), "train", options(), training=True).class_names[3] == "n3"


def test_leaving_an_epoch_early_does_not_hang(data):
    loader = build_dataset(str(data), "train", options(batch_size=2), training=True)
    start = time.monotonic()
    for epoch in range(10):
        for step, _ in enumerate(loader.batches(epoch)):
            if step == epoch:
                break
    one, two = loader.batches(0), loader.batches(1)  # two parallel epochs do not affect each other
    a, b = next(one), next(two)
    one.close()
    assert (next(loader.batches(0))[0].numpy() == a[0].numpy()).all()
    assert (next(loader.batches(1))[0].numpy() == b[0].numpy()).all()
    del two
    assert time.monotonic() - start < 60


ENDING = """
import atexit, sys
atexit.register(lambda: print(batches.gi_frame is None))  # runs after all other exit functions
from convoy.dataloader.loader import build_dataset
from convoy.dataloader.options import InputOptions

options = InputOptions(image_size=24, batch_size=2, num_classes=10, steps_per_epoch=10**6)
batches = build_dataset(sys.argv[1], "train", options, training=True).batches(0)
next(batches)
"""


def test_batches_are_closed_before_the_interpreter_ends(data):
    command = [sys.executable, "-c", ENDING, str(data)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, timeout=60, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("can't start new thread", RuntimeError),
        ("cannot schedule new futures after shutdown", StopIteration),
    ],
)
def test_a_thread_that_cannot_be_started_is_an_error_while_python_runs(
    data, monkeypatch, message, error
):
    """The end of the interpreter raises the same class of error, and is none."""
    loader = build_dataset(str(data), "train", options(), training=True)

    def refuse(*_):
        raise RuntimeError(message)

    monkeypatch.setattr(loader._pool, "map", refuse)
    with pytest.raises(error):
        loader._read(0, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": 0},
        {"batch_size": 0},
        {"num_workers": 0},
        {"crop_area": (0.0, 1.0)},
        {"crop_ratio": (2.0, 1.0)},
        {"hflip": 1.5},
        {"mixup_alpha": -1.0},
        {"max_bad_examples": -1},
        {"max_bad_examples": 1.5},
        {"interpolation": "cubic"},
        {"num_classes": 0},
    ],
)
def test_an_invalid_option_is_refused_by_name(wrong):
    name = next(iter(wrong))
    with pytest.raises(ValueError, match=name):
        InputOptions(**wrong)


def test_a_loader_accepts_a_given_source(data):
    loader = Loader(find_source(data, "train"), options(), training=True)
    again = build_dataset(None, "train", options(), training=True, source=loader.source)
    assert (collect(loader)[0] == collect(again)[0]).all()
