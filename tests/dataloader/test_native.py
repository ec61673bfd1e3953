"""The C++ operations give the bytes of TensorFlow's, which other tests compare with Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from convoy.dataloader import native
from convoy.dataloader.augment import augmenter, policies
from convoy.dataloader.augment.levels import RANGES
from convoy.dataloader.images.crops import UNIFORMS, crop_window, eval_decode, random_crop_decode
from convoy.dataloader.images.decoders import decode_image
from convoy.dataloader.images.eval_crop import EvalCrop
from convoy.dataloader.images.resizing import resize
from convoy.dataloader.loader import build_dataset
from convoy.dataloader.options import InputOptions

pytestmark = pytest.mark.usefixtures("native_ops")

LEVELS = (0, 0.3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12.5, 15)
TURNS = (-0.5, -0.31, -0.1, -0.001, 0.0, 0.05, 0.25, 0.5)


def arguments_of(op):
    """Returns an operation's arguments for any level, table of ranges and sign."""
    if op == policies.HUE:
        return TURNS
    found = {
        policies.argument(op, level, ranges=ranges, negative=negative)
        for level in LEVELS
        for ranges in RANGES
        for negative in (False, True)
    }
    return sorted(found)


@pytest.fixture(scope="module")
def real():
    """Two photographs, noise and flat colours, by name: uint8 (H, W, 3)."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    china, flower = load_sample_images().images
    noise = {
        f"noise {h}x{w}": rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
        for h, w in ((1, 1), (1, 7), (7, 1), (2, 3), (97, 131))
    }
    return noise | {
        "china": np.ascontiguousarray(china[100:212, 200:312]),
        "flower": np.ascontiguousarray(flower[150:247, 300:431]),
        "dark": flower[:60, :90] // 4,
        "flat": np.full((33, 40, 3), (0, 128, 255), np.uint8),
    }


def choice_of(names, arguments, centres=None):
    centres = np.full((len(names), 2), 0.4) if centres is None else centres
    return augmenter.Choice(
        tf.constant([policies.OPS.index(name) for name in names], tf.int32),
        tf.constant(arguments, tf.float64),
        tf.constant(centres, tf.float32),
    )


_apply = tf.function(
    augmenter.apply_choice,
    input_signature=[
        tf.TensorSpec([None, None, 3], tf.uint8),
        augmenter.Choice(
            tf.TensorSpec([4], tf.int32),
            tf.TensorSpec([4], tf.float64),
            tf.TensorSpec([4, 2], tf.float32),
        ),
    ],
    autograph=False,
)


@pytest.fixture(scope="module")
def both():
    """A function that runs four steps natively and with TensorFlow, and returns both results."""
    fast = _apply.python_function
    with native.disabled():
        slow = _apply.get_concrete_function()

    def run(image, names, arguments, centres=None):
        names, arguments = list(names), list(arguments)
        missing = 4 - len(names)
        choice = choice_of(
            names + [policies.IDENTITY] * missing, arguments + [0.0] * missing, centres
        )
        image = tf.constant(image)
        return fast(image, choice).numpy(), slow(image, *choice).numpy()

    return run


@pytest.mark.parametrize("op", policies.OPS)
@pytest.mark.parametrize(
    "every", [pytest.param(1, id="all", marks=pytest.mark.slow), pytest.param(3, id="a third")]
)
def test_every_operation_at_its_levels_gives_tensorflows_bytes(both, real, op, every):
    rng = np.random.default_rng(1)
    for name, image in real.items():
        for argument in arguments_of(op)[::every]:
            got, wanted = both(image, [op], [argument], rng.random((4, 2)))
            np.testing.assert_array_equal(got, wanted, f"{name}, {argument}")


@pytest.mark.parametrize("policy", policies.list_policies())
def test_sub_policies_give_tensorflows_bytes(both, real, policy):
    for i, sub_policy in enumerate(policies.get_policy(policy)):
        for image in real.values():
            arguments = [
                policies.argument(step.op, step.level, ranges=step.ranges, negative=i % 2 == 1)
                for step in sub_policy
            ]
            got, wanted = both(image, [step.op for step in sub_policy], arguments)
            np.testing.assert_array_equal(got, wanted, str(sub_policy))


def test_steps_merged_into_tables_give_tensorflows_bytes(both, real):
    """Random sequences of four steps: table operations before, between and after other ones."""
    rng = np.random.default_rng(3)
    images = list(real.values())
    for round_ in range(300):
        names = rng.choice(policies.OPS, 4)
        arguments = [
            policies.argument(op, rng.choice(LEVELS)) * rng.choice((-1, 1)) for op in names
        ]
        got, wanted = both(images[round_ % len(images)], names, arguments, rng.random((4, 2)))
        np.testing.assert_array_equal(got, wanted, f"{names} {arguments}")


def test_the_input_image_is_not_changed(native_ops, real):
    image = tf.constant(real["china"])
    native_ops.convoy_augment(image, [0], [0.0], np.zeros((1, 2), np.float32), names=["Invert"])
    np.testing.assert_array_equal(image.numpy(), real["china"])


@pytest.mark.parametrize("factor", TURNS)
def test_hue_gives_pillows_bytes(native_ops, real, factor):
    for image in real.values():
        hue, saturation, value = Image.fromarray(image).convert("HSV").split()
        turned = (np.asarray(hue).astype(int) + int(factor * 255)) % 256
        turned = Image.fromarray(turned.astype(np.uint8), "L")
        wanted = Image.merge("HSV", (turned, saturation, value)).convert("RGB")
        got = native_ops.convoy_augment(
            image, [0], [factor], np.zeros((1, 2), np.float32), names=["Hue"]
        )
        np.testing.assert_array_equal(got.numpy(), np.asarray(wanted))


# ---- crops and resizing --------------------------------------------------------------------------


def test_resizing_and_flipping_give_tensorflows_bytes(real):
    rng = np.random.default_rng(4)
    shapes = rng.integers(1, 300, (60, 4)).tolist()
    shapes += [[1, 1, 224, 224], [375, 500, 224, 224], [224, 224, 224, 224], [3000, 2, 5, 7]]
    for height, width, *size in shapes:
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        wanted = np.rint(tf.image.resize(image, size).numpy()).astype(np.uint8)
        message = f"{height}×{width} to {size}"
        np.testing.assert_array_equal(resize(image, size).numpy(), wanted, message)
        for flip in (False, True):
            got = resize(image, size, flip=tf.constant(flip)).numpy()
            np.testing.assert_array_equal(got, wanted[:, ::-1] if flip else wanted, message)
    for image in real.values():
        with native.disabled():
            wanted = resize(image, [224, 160])
        np.testing.assert_array_equal(resize(image, [224, 160]), wanted)


def test_crop_windows_equal_tensorflows():
    @tf.function(
        input_signature=[tf.TensorSpec([2], tf.int32), tf.TensorSpec([UNIFORMS])], autograph=False
    )
    def windows(shape, uniforms):
        boxes = [crop_window(shape, uniforms, (0.05, 1.0), (0.75, 1.333))]
        boxes.append(crop_window(shape, uniforms, (0.9, 1.0), (1.5, 2.5)))
        return tf.stack(boxes)

    fast = windows.get_concrete_function()
    with native.disabled():
        slow = tf.function(
            windows.python_function, input_signature=windows.input_signature, autograph=False
        )
        slow = slow.get_concrete_function()
    rng = np.random.default_rng(5)
    for _ in range(500):
        shape = rng.integers(1, rng.choice((4, 600, 20000)), 2).astype(np.int32)
        uniforms = tf.constant(rng.random(UNIFORMS, np.float32))
        got, wanted = fast(tf.constant(shape), uniforms), slow(tf.constant(shape), uniforms)
        np.testing.assert_array_equal(got, wanted, str(shape))
    top = tf.fill([UNIFORMS], np.nextafter(np.float32(1), np.float32(0)))
    np.testing.assert_array_equal(fast([333, 1000], top), slow([333, 1000], top))


def encoded_images(real, writers):
    yield from (writers.jpeg(real[name], quality=q) for name, q in (("china", 92), ("flower", 50)))
    yield writers.jpeg(real["noise 97x131"][..., 0])
    yield tf.io.encode_png(real["noise 97x131"]).numpy()
    yield tf.io.encode_png(real["flower"]).numpy()


def test_decoding_and_cropping_give_tensorflows_bytes(real, writers):
    for encoded in encoded_images(real, writers):
        for seed in range(15):
            got = random_crop_decode(tf.constant(encoded), [seed, 9], 64)
            with native.disabled():
                wanted = random_crop_decode(tf.constant(encoded), [seed, 9], 64)
            np.testing.assert_array_equal(got, wanted)
        for crop in (EvalCrop(), EvalCrop(method="resize"), EvalCrop(antialias=True)):
            got = eval_decode(tf.constant(encoded), 64, crop)
            with native.disabled():
                wanted = eval_decode(tf.constant(encoded), 64, crop)
            np.testing.assert_array_equal(got, wanted)
        assert got.shape == (64, 64, 3)
        assert decode_image(tf.constant(encoded)).shape[-1] == 3


@pytest.mark.parametrize(
    "settings",
    [
        {"augmenter": "autoaugment"},
        pytest.param({"augmenter": "randaugment", "space": "timm-inc"}, marks=pytest.mark.slow),
        pytest.param({"augmenter": "trivialaugment"}, marks=pytest.mark.slow),
        pytest.param(
            {"color_jitter": (0.4, 0.4, 0.4, 0.1), "random_erasing": 0.5}, marks=pytest.mark.slow
        ),
    ],
    ids=str,
)
def test_a_loader_gives_the_same_batches_with_and_without_native_operations(
    tmp_path, real, writers, settings
):
    """200 examples, each with its own seed: crops, flips and augmentations together."""
    jpegs = [(writers.jpeg(real[("china", "flower")[i % 2]]), i % 10) for i in range(200)]
    folder = writers.dataset(tmp_path, jpegs, [])
    options = InputOptions(image_size=48, batch_size=20, num_workers=1, **settings)

    def images():
        loader = build_dataset(str(folder), "train", options, training=True)
        return np.concatenate([b[0].numpy() for b in loader.batches(0)])

    got = images()
    with native.disabled():
        wanted = images()
    assert got.shape == (200, 48, 48, 3)
    # Some images are shifted out of view completely.
    assert len(np.unique(got.reshape(200, -1), axis=0)) > 120
    np.testing.assert_array_equal(got, wanted)
