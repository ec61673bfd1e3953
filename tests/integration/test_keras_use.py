"""Models and batches in Keras: `fit`, and `.keras` files in another process."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from convoy.dataloader import DataError, InputOptions, build_dataset
from convoy.model import build_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of 12 training and 10 validation images of two classes, dark and bright."""
    place = tmp_path_factory.mktemp("fit")
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 5)):
        for level, name in ((60, "dark"), (190, "bright")):
            (place / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(level - 50, level + 50, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(place / split / name / f"{i}.png")
    return str(place)


def test_fit_runs_several_epochs_and_ignores_padding(folder):
    options = InputOptions(image_size=16, batch_size=8)
    train = build_dataset(folder, "train", options, training=True)
    val = build_dataset(folder, "val", options, training=False)
    assert (val.num_examples, val.steps_per_epoch) == (10, 2)  # six of 16 slots are padding
    scale = keras.layers.Rescaling(1 / 128, -1)
    mean = keras.layers.GlobalAveragePooling2D()
    net = keras.Sequential([keras.Input((16, 16, 3)), mean, scale, keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(keras.optimizers.SGD(0.0), loss, weighted_metrics=["accuracy"])
    # These weights make every answer wrong.
    net.layers[-1].set_weights([np.full((3, 2), [-1.0, 1.0]), np.zeros(2)])
    history = net.fit(
        train.epochs(),
        steps_per_epoch=train.steps_per_epoch,
        epochs=3,
        validation_data=val.epochs(),
        validation_steps=val.steps_per_epoch,
        shuffle=False,
        verbose=0,
    ).history
    # Classes are sorted: bright is 0, and the weights above predict 1 for it.
    assert history["val_accuracy"] == [0.0] * 3
    assert history["accuracy"] == [0.0] * 3
    assert all(value > 1 for value in history["loss"])
    net.layers[-1].set_weights([np.full((3, 2), [1.0, -1.0]), np.zeros(2)])
    found = net.evaluate(val.batches(0), steps=val.steps_per_epoch, verbose=0, return_dict=True)
    assert found["accuracy"] == 1.0


def test_epochs_yields_the_batches_of_consecutive_epochs(folder):
    options = InputOptions(image_size=16, batch_size=8)
    train = build_dataset(folder, "train", options, training=True)
    endless = train.epochs(first=1)
    for epoch in (1, 2):
        for batch in train.batches(epoch):
            for ours, theirs in zip(next(endless), batch, strict=True):
                np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("split", ["val", "valid", "validation"])
def test_the_validation_split_may_have_any_of_its_names(split, folder):
    data = build_dataset(folder, split, InputOptions(image_size=16, batch_size=8), training=False)
    assert data.num_examples == 10


def test_an_unknown_split_is_refused(folder):
    with pytest.raises(DataError, match="'holdout' is not one of train"):
        build_dataset(folder, "holdout", InputOptions(), training=False)


def behind_normalization(mean, std, seed):
    """Our model behind Keras' own preprocessing; without `mean` it is not adapted."""
    keras.utils.set_random_seed(seed)
    images = keras.Input((32, 32, 3))
    norm = keras.layers.Normalization(name="keras_norm")
    x = norm(images)
    inside = {"mean": [0.0] * 3, "std": [1.0] * 3}
    net = build_model("efficientnet-test", num_classes=3, image_size=32, seed=seed, **inside)
    whole = keras.Model(images, net(x))
    if mean is not None:
        for v, value in zip(norm.weights, (mean, np.square(std), 0), strict=True):
            v.assign(value)
        norm.finalize_state()
    return whole


def test_behind_keras_own_normalization_a_file_keeps_the_logits_and_set_weights_needs_one_call():
    """Keras 3 computes with copies of the statistics; our own normalisation has no weights."""
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    whole = behind_normalization([120.0, 110.0, 100.0], [60.0, 58.0, 57.0], seed=0)
    want = np.asarray(whole(images, training=False))
    other = behind_normalization(None, None, seed=1)
    other.set_weights(whole.get_weights())
    assert np.abs(np.asarray(other(images, training=False)) - want).max() > 1e-3
    other.get_layer("keras_norm").finalize_state()  # docs/python.md
    np.testing.assert_allclose(other(images, training=False), want, atol=1e-5)


def test_our_model_computes_with_new_weights_at_once(tmp_path):
    import tensorflow as tf

    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    first, *others = (
        build_model("efficientnet-test", num_classes=3, image_size=32, seed=seed)
        for seed in range(4)
    )
    want = np.asarray(first(images, training=False))
    others[0].set_weights(first.get_weights())
    for ours, theirs in zip(others[1].weights, first.weights, strict=True):
        ours.assign(theirs)
    place = tf.train.Checkpoint(model=first).save(str(tmp_path / "x"))
    tf.train.Checkpoint(model=others[2]).restore(place).assert_existing_objects_matched()
    for other in others:
        np.testing.assert_array_equal(other(images, training=False), want)


LOAD = """
{}
import numpy as np
net = keras.saving.load_model("a.keras")
assert np.allclose(net(np.load("images.npy"), training=False), np.load("logits.npy"), atol=1e-5)
source = " ".join(p.read_text() for p in __import__("pathlib").Path({!r}).glob("*.py"))
import re
names = re.findall(r"register_keras_serializable.package=.convoy.*?class (\\w+)", source, re.S)
assert len(names) > 8, names
assert all(keras.saving.get_registered_object("convoy>" + name) for name in names)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports",
    [
        "import convoy.model.build\nimport keras",
        "import keras\nimport convoy.model",
    ],
)
def test_a_keras_file_loads_in_another_process(imports, tmp_path):
    net = build_model("efficientnet-test", num_classes=3, image_size=32, seed=0)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "logits.npy", np.asarray(net(images, training=False)))
    net.save(tmp_path / "a.keras")
    done = subprocess.run(
        [sys.executable, "-c", LOAD.format(imports, str(ROOT / "model"))],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
