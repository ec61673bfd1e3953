"""Augmentation of one image: each choice runs its operation, and a seed determines the result.

test_choices.py tests the random choices.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from convoy.dataloader.augment import augmenter as augment
from convoy.dataloader.augment import policies


def _image(height: int = 48, width: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_seeded_uniforms_differ_between_neighbouring_seeds():
    # Seeds of neighbouring examples may differ by one in one number only.
    seeds = [(a, b) for a in range(40) for b in range(40)]
    draws = np.stack([augment._uniforms(tf.constant(seed), [9]).numpy() for seed in seeds])
    assert draws.mean(axis=0) == pytest.approx(np.full(9, 0.5), abs=5 / (12 * 1600) ** 0.5)
    assert np.abs(np.corrcoef(draws.T) - np.eye(9)).max() < 5 / 1600**0.5
    neighbours = np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]
    assert abs(neighbours) < 5 / 1600**0.5


# --- application --------------------------------------------------------------------------------


EVERYTHING = {"color_jitter": (0.4, 0.4, 0.4, 0.1), "random_erasing": 0.5}


@pytest.fixture(
    scope="module",
    params=[("autoaugment", {}), ("randaugment", {"magnitude_std": 0.5}), ("none", EVERYTHING)],
    ids=lambda param: param[0],
)
def compiled(request):
    name, options = request.param
    function = augment.make_augmenter(name, **options)
    signature = [tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([2], tf.int32)]
    return tf.function(function, input_signature=signature, autograph=False)


def test_the_seed_determines_the_image(compiled):
    image = _image()
    first = [compiled(image, (7, number)).numpy() for number in range(30)]
    again = [compiled(image, (7, number)).numpy() for number in reversed(range(30))]
    for one, other in zip(first, reversed(again), strict=True):
        np.testing.assert_array_equal(one, other)
    # Not 30: some sub-policies have few outcomes, and one is no change.
    assert len({result.tobytes() for result in first}) > 12
    other_seed = [compiled(image, (8, number)).numpy() for number in range(30)]
    same = sum(np.array_equal(a, b) for a, b in zip(first, other_seed, strict=True))
    assert same < 8


def test_graph_and_eager_execution_give_the_same_image(compiled):
    image = tf.constant(_image(31, 57))
    for number in range(12):
        seed = tf.constant([3, number])
        eager = compiled.python_function(image, seed)
        np.testing.assert_array_equal(compiled(image, seed).numpy(), eager.numpy())


def test_order_and_parallelism_of_a_tf_data_map_do_not_change_the_images():
    augmenter = augment.make_augmenter("autoaugment")
    image = tf.constant(_image(32, 32))

    def run(numbers: list[int], parallel: int) -> dict[int, bytes]:
        data = tf.data.Dataset.from_tensor_slices(numbers)
        data = data.map(
            lambda n: (n, augmenter(image, tf.stack([5, n]))),
            num_parallel_calls=parallel,
            deterministic=False,
        )
        assert data.element_spec[1].shape == (32, 32, 3)
        return {int(n): result.tobytes() for n, result in data.as_numpy_iterator()}

    assert run(list(range(40)), 1) == run(list(range(39, -1, -1)), 4)


@pytest.mark.parametrize("op", policies.OPS)
def test_apply_op_runs_the_operation_with_that_number(op):
    # Values in 90–217, so that each operation changes something.
    image = tf.constant(_image() // 2 + 90)
    argument = policies.argument(op, 7, translate_const=40, cutout_const=20)
    if op == policies.HUE:
        argument = 0.2
    centre = tf.constant([0.4, 0.6])
    number = tf.constant(policies.OPS.index(op))
    got = augment.apply_op(image, number, tf.constant(argument, tf.float64), centre)
    snake = {
        "AutoContrast": "auto_contrast",
        "SolarizeAdd": "solarize_add",
        **{
            f"{name}{axis}": f"{name.lower()}_{axis.lower()}"
            for name in ("Shear", "Translate")
            for axis in "XY"
        },
    }.get(op, op.lower())
    if op == policies.IDENTITY:
        expected = image
    elif op in ("AutoContrast", "Equalize", "Invert"):
        expected = getattr(augment.image_ops, snake)(image)
    elif op == "Cutout":
        expected = augment.image_ops.cutout(image, argument, int(0.4 * 48), int(0.6 * 40))
    else:
        expected = getattr(augment.image_ops, snake)(image, argument)
    np.testing.assert_array_equal(got.numpy(), expected.numpy())
    if op != policies.IDENTITY:
        assert (got != image).numpy().any()


def test_traced_functions_work_after_clear_session_and_in_other_graphs():
    image, seed = tf.constant(_image(16, 16)), tf.constant([1, 3])
    augmenter = augment.make_augmenter("randaugment")
    before = augmenter(image, seed).numpy()
    keras.utils.clear_session()
    for wrap in (lambda f: f, tf.function, tf.function):
        np.testing.assert_array_equal(wrap(augmenter)(image, seed).numpy(), before)


def test_the_static_shape_is_kept():
    augmenter = augment.make_augmenter("randaugment", num_layers=1)
    for shape in ([None, None, 3], [24, None, 3], [24, 24, 3]):
        graph = tf.function(augmenter, autograph=False).get_concrete_function(
            tf.TensorSpec(shape, tf.uint8), tf.TensorSpec([2], tf.int32)
        )
        assert graph.structured_outputs.shape.as_list() == shape
        assert graph.structured_outputs.dtype == tf.uint8


def test_a_policy_can_be_given_as_data():
    policy = ((policies.Step("Invert", 1.0, 0),), (policies.Step("Invert", 1.0, 0),))
    image = _image()
    got = augment.make_augmenter("autoaugment", policy=policy)(image, tf.constant([1, 2]))
    np.testing.assert_array_equal(got.numpy(), 255 - image)


def test_an_augmenter_without_operations_is_none():
    assert augment.make_augmenter("none") is None
    assert augment.make_augmenter("none", color_jitter=[0.0], random_erasing=0.0) is None


def test_policy_jitter_and_erasing_run_in_this_order():
    image, seed = _image(), tf.constant([4, 5])
    policy = ((policies.Step("Invert", 1.0, 0),),)
    options = {"color_jitter": (0.4,), "random_erasing": 1.0, "random_erasing_mode": "constant"}
    whole = augment.make_augmenter("autoaugment", policy=policy, **options)(image, seed).numpy()
    erased = (whole == (124, 116, 104)).all(axis=-1)
    assert 0.01 < erased.mean() < 0.5
    plain = augment.make_augmenter("autoaugment", policy=policy, color_jitter=(0.4,))
    jittered = plain(image, seed).numpy()
    np.testing.assert_array_equal(whole[~erased], jittered[~erased])
    assert (jittered != 255 - image).any()


def test_the_image_size_scales_timms_translations_unless_a_constant_is_given():
    def translation(**options):
        """Returns the largest shift of a bright column over many seeds, in pixels."""
        image = np.zeros((64, 64, 3), np.uint8)
        image[:, 32] = 255
        names = {"space": "timm", "num_layers": 1, "magnitude": 10, **options}
        signature = [tf.TensorSpec([64, 64, 3], tf.uint8), tf.TensorSpec([2], tf.int32)]
        augmenter = augment.make_augmenter("randaugment", **names)
        function = tf.function(augmenter, input_signature=signature, autograph=False)
        places = set()
        for number in range(400):
            bright = (function(image, (1, number)).numpy() == 255).all(axis=(0, 2))
            places |= set(np.flatnonzero(bright).tolist() if bright.sum() == 1 else ())
        return max(abs(place - 32) for place in places)

    assert translation(image_size=64) == 29
    assert translation(image_size=64, translate_const=8) == 8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: augment.make_augmenter("AutoAugmnt"), "Did you mean 'autoaugment'"),
        (lambda: augment.make_augmenter("autoaugment", policy="v1"), "Did you mean 'v0'"),
        (lambda: augment.make_augmenter("autoaugment", policy="imagenet"), "say which"),
        (lambda: augment.make_augmenter("randaugment", magnitude=-1), "level .* not -1"),
        (lambda: augment.make_augmenter("randaugment", magnitude_std=-1), "std .* not -1"),
        (lambda: augment.make_augmenter("randaugment", space="tim"), "Did you mean 'timm'"),
        (lambda: augment.make_augmenter("randaugment", num_layers=0), "num_layers .* not 0"),
        (lambda: augment.make_augmenter("autoaugment", translate_const=-1.0), "translate_const"),
        (lambda: augment.make_augmenter("none", random_erasing=1.5), "probability.* not 1.5"),
        (
            lambda: augment.make_augmenter("none", random_erasing=1, random_erasing_mode="nois"),
            "Did you mean 'noise'",
        ),
        (lambda: augment.make_augmenter("none", color_jitter=[1] * 5), "1 to 4 .* not 5"),
        (lambda: augment.make_augmenter("none", color_jitter=[0, 0, 0, 0.6]), "hue .* not 0.6"),
        (lambda: augment.make_augmenter("none", color_jitter=[-0.1]), "from 0 to 255, not .-0.1"),
        (lambda: augment.make_augmenter("none", color_jitter=[256]), "from 0 to 255, not .256"),
        (lambda: _augmented(np.zeros((4, 4, 3), np.float32)), "float32"),
        (lambda: _augmented(np.zeros((2, 4, 4, 3), np.uint8)), "before batch"),
        (lambda: _augmented(np.zeros((4, 4, 1), np.uint8)), r"\(4, 4, 1\)"),
        (
            lambda: augment.make_augmenter(
                "autoaugment",
                policy=((policies.Step("Invert", 1, 0),), policies.get_policy("v0")[0]),
            ),
            "one and the same length",
        ),
    ],
)
def test_invalid_arguments_are_refused_with_the_reason(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def _augmented(image):
    return augment.make_augmenter("randaugment")(image, (1, 2))
