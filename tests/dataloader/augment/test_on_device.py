"""A batch augmented and mixed on the device has the same bytes as one from the host.

test_operations.py compares the operations with Pillow.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from convoy.dataloader import philox
from convoy.dataloader.augment import augmenter as augment
from convoy.dataloader.augment import mixing
from convoy.dataloader.augment.device_plan import Planned, Planner
from convoy.dataloader.augment.on_device import make_prepare
from convoy.dataloader.loader import build_dataset
from convoy.dataloader.options import InputOptions

SIZE, BATCH, CLASSES = 48, 40, 7
EVERYTHING = {"color_jitter": (0.4, 0.4, 0.4, 0.1), "random_erasing": 0.5}


@pytest.fixture(scope="module")
def pictures():
    """Parts of two photographs at several scales, and one grey image: uint8 (B, H, W, 3)."""
    from sklearn.datasets import load_sample_images

    rng, originals, parts = np.random.default_rng(0), load_sample_images().images, []
    for i in range(BATCH):
        step = 1 + i % 4
        y, x = (rng.integers(0, side - SIZE * step) for side in originals[0].shape[:2])
        parts.append(originals[i % 2][y : y + SIZE * step : step, x : x + SIZE * step : step])
    parts[3] = np.full_like(parts[3], 128)
    return np.stack(parts)


def _seeds(number: int = 0) -> np.ndarray:
    """Returns seeds like a loader's: int32 (B, 2)."""
    return np.random.default_rng(number).integers(-(2**31), 2**31, (BATCH, 2)).astype(np.int32)


def _plan(planner, images, seeds, labels, weights):
    """Returns what a loader yields, from draws made one by one."""
    draw = tf.function(planner.draw, autograph=False)
    draws = [draw(tf.constant(seed), tf.constant(seed)) for seed in seeds]
    draws = tf.nest.map_structure(lambda *parts: tf.stack(parts), *draws)
    plan, labels = tf.function(planner.plan, autograph=False)(draws, labels, weights)
    return Planned(tf.constant(images), plan), labels


def _on_host(augmenter, images, seeds):
    signature = [tf.TensorSpec(images.shape[1:], tf.uint8), tf.TensorSpec([2], tf.int32)]
    function = tf.function(augmenter, input_signature=signature, autograph=False)
    return np.stack(
        [function(image, seed).numpy() for image, seed in zip(images, seeds, strict=True)]
    )


POLICIES = {
    "v0": {"name": "autoaugment"},
    "original": {"name": "autoaugment", "policy": "original"},
    "reduced": {"name": "autoaugment", "policy": "reduced"},
    "tf": {"name": "randaugment", "cutout_const": 12, "translate_const": 20},
    "timm": {"name": "randaugment", "space": "timm", "num_layers": 3},
    "timm-inc": {"name": "randaugment", "space": "timm-inc", "magnitude": 9, "magnitude_std": 0.5},
    "trivialaugment": {"name": "trivialaugment"},
    "jitter, erasing": {"name": "none", **EVERYTHING},
    "constant": {"name": "none", "random_erasing": 0.7, "random_erasing_mode": "constant"},
}
SLOW = {"original", "reduced", "timm", "trivialaugment"}


@pytest.mark.parametrize(
    "policy", [pytest.param(p, marks=[pytest.mark.slow] * (p in SLOW)) for p in POLICIES]
)
def test_every_policy_gives_the_hosts_bytes_on_the_device(pictures, policy):
    augmenter = augment.make_augmenter(image_size=SIZE, **POLICIES[policy])
    seeds = _seeds(1)
    planner = Planner(augmenter, None, SIZE)
    planned, _ = _plan(planner, pictures, seeds, tf.zeros(BATCH, tf.int32), tf.ones(BATCH))
    wanted = _on_host(augmenter, pictures, seeds)
    assert (wanted != pictures).any(axis=(1, 2, 3)).mean() > 0.3
    got = make_prepare(planner.recipe)(planned).numpy()
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy != "v0"])
def test_every_policy_compiled_by_xla_gives_the_hosts_bytes(pictures, policy):
    _check_through_xla(pictures, augment.make_augmenter(image_size=SIZE, **POLICIES[policy]))


@pytest.mark.slow
def test_a_policy_with_mixing_compiled_by_xla_gives_the_hosts_bytes(pictures):
    augmenter = augment.make_augmenter("autoaugment", image_size=SIZE, **EVERYTHING)
    _check_through_xla(pictures, augmenter, mixing.make_mixer(0.4, 1.0, CLASSES, prob=0.8))


def _check_through_xla(pictures, augmenter, mixer=None):
    seeds = _seeds(2)
    labels = tf.constant(np.arange(BATCH) % CLASSES, tf.int32)
    weights = tf.constant(np.arange(BATCH) != 3, tf.float32)
    planner = Planner(augmenter, mixer, SIZE)
    planned, planned_labels = _plan(planner, pictures, seeds, labels, weights)
    # As with --use_xla: the function is part of a larger compiled one.
    prepare = make_prepare(planner.recipe, planner.mixing)
    got = tf.function(lambda batch: prepare(batch) + 0, jit_compile=True, autograph=False)(
        planned
    ).numpy()
    wanted = _on_host(augmenter, pictures, seeds)
    if mixer is not None:
        wanted, labels, _ = mixer(wanted, labels, weights, seeds)
    np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(planned_labels, labels)


@pytest.mark.parametrize("alphas", [(0.3, 0.0), (0.0, 1.0), (0.3, 1.0)])
def test_mixing_on_the_device_gives_the_hosts_bytes(pictures, alphas):
    mixer = mixing.make_mixer(*alphas, CLASSES)
    labels = tf.constant(np.arange(BATCH) % CLASSES, tf.int32)
    weights = tf.constant(np.arange(BATCH) % 5 != 3, tf.float32)
    planner = Planner(None, mixer, SIZE)
    planned, got_labels = _plan(planner, pictures, _seeds(3), labels, weights)
    wanted, wanted_labels, _ = mixer(pictures, labels, weights, _seeds(3))
    for compiled in (False, True):
        got = make_prepare(planner.recipe, planner.mixing, compiled=compiled)(planned)
        np.testing.assert_array_equal(got.numpy(), wanted.numpy())
    np.testing.assert_array_equal(got_labels, wanted_labels)


def test_the_devices_function_has_no_native_operation_and_no_branch(pictures):
    augmenter = augment.make_augmenter("autoaugment", image_size=SIZE)
    planner = Planner(augmenter, None, SIZE)
    labels, weights = tf.zeros(BATCH, tf.int32), tf.ones(BATCH)
    planned, _ = _plan(planner, pictures, _seeds(), labels, weights)
    graph = make_prepare(planner.recipe).get_concrete_function(planned).graph
    types = {op.type for op in graph.get_operations()}
    assert "GatherV2" in types
    assert not {t for t in types if "Convoy" in t or t in ("PyFunc", "StatelessCase", "Case", "If")}


# --- random numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        ((0, 0), (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 2,
            (0xFFFFFFFF,) * 4,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0xA4093822, 0x299F31D0),
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_test_vectors(key, counter, expected):
    key, counter = tf.constant(key, tf.uint32), tf.constant(counter, tf.uint32)
    got = philox.blocks(key, counter, tf.constant(0, tf.uint32))
    assert [int(word) for word in got] == list(expected)


def test_philox_counters_carry_into_the_next_words():
    counter = tf.constant([0xFFFFFFFE, 0xFFFFFFFF, 7, 1], tf.uint32)
    key = tf.constant([5, 6], tf.uint32)
    got = philox.blocks(key, counter, tf.constant(3, tf.uint32))
    same = philox.blocks(key, tf.constant([1, 0, 8, 1], tf.uint32), tf.constant(0, tf.uint32))
    assert [int(word) for word in got] == [int(word) for word in same]


def test_philox_blocks_of_a_seed_equal_tensorflows_bits():
    seed = tf.constant([-5, 77])
    wanted = philox.bits([1000, 4], seed).numpy()
    key, counter = philox.key_and_counter(seed)
    index = tf.cast(tf.range(1000), tf.uint32)
    got = tf.stack(philox.blocks(key, counter, index), axis=-1)
    np.testing.assert_array_equal(got, wanted)


# --- through the loader -------------------------------------------------------------------------


def test_a_loader_gives_the_same_batches_with_augmentation_on_host_and_device(tiny):
    settings = {"augmenter": "randaugment", "random_erasing": 0.5, "mixup_alpha": 0.4}
    settings |= {"cutmix_alpha": 1.0, "image_size": 32, "batch_size": 8}

    def loader(where):
        options = InputOptions(augment_on=where, **settings)
        return build_dataset(str(tiny), "train", options, training=True, rank=1, world=2)

    host, device = loader("cpu"), loader("device")
    assert host.prepare is None
    for each in (host, device):
        each.bad_examples[int(device.drawn(1, 0)[0][1])] = "said to be unreadable"
    without_weight = 0
    for one, other in zip(host.batches(1), device.batches(1), strict=True):
        planned, labels, weights = other
        assert planned.images.dtype == tf.uint8
        np.testing.assert_array_equal(device.prepare(planned), one[0])
        np.testing.assert_array_equal(labels, one[1])
        np.testing.assert_array_equal(weights, one[2])
        without_weight += int((weights == 0).numpy().sum())
    # The bad example, and the padding of the last batch.
    assert without_weight == 1 + 8 - 97 // 2 % 8


def test_prepare_is_none_without_random_operations_and_in_evaluation(tiny):
    options = InputOptions(image_size=32, batch_size=4, augment_on="device")
    loader = build_dataset(str(tiny), "train", options, training=True)
    assert loader.prepare is None
    assert next(loader.batches(0))[0].dtype == tf.uint8
    options = InputOptions(image_size=32, batch_size=4, augment_on="device", mixup_alpha=0.2)
    assert build_dataset(str(tiny), "validation", options, training=False).prepare is None
    with pytest.raises(ValueError, match="augment_on"):
        InputOptions(augment_on="gpu")
