"""AutoAugment and RandAugment: what is drawn (distributions), and that a seed decides it all."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from dataloader import augment, policies

DRAWS = 200_000
IDENTITY = policies.OPS.index(policies.IDENTITY)


def _uniforms(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def _image(height: int = 48, width: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _tolerance(probability: float, draws: int) -> float:
    """Five standard deviations: one false alarm in about two million checks."""
    return 5 * (probability * (1 - probability) / draws) ** 0.5 + 1e-9


# --- what is drawn ------------------------------------------------------------------------------


def test_autoaugment_draws_sub_policies_uniformly_and_steps_with_their_probability():
    uniforms = _uniforms(DRAWS, 9)
    choice = augment.autoaugment_choice(tf.constant(uniforms))
    ops = choice.ops.numpy()
    index = np.floor(uniforms[:, 0].astype(np.float64) * 25).astype(int)
    assert np.bincount(index, minlength=25) / DRAWS == pytest.approx(
        np.full(25, 1 / 25), abs=_tolerance(1 / 25, DRAWS)
    )
    for number, sub_policy in enumerate(policies.get_policy("v0")):
        rows = ops[index == number]
        for position, step in enumerate(sub_policy):
            applied = rows[:, position] == policies.OPS.index(step.op)
            assert np.all(applied | (rows[:, position] == IDENTITY))
            assert applied.mean() == pytest.approx(
                step.probability, abs=_tolerance(step.probability, len(rows))
            )
        # The two steps are drawn independently.
        both = (rows != IDENTITY).all(axis=1).mean()
        product = sub_policy[0].probability * sub_policy[1].probability
        assert both == pytest.approx(product, abs=_tolerance(product, len(rows)))


def test_autoaugment_arguments_are_those_of_the_levels_with_signs_for_geometry_only():
    uniforms = _uniforms(DRAWS, 9, seed=1)
    choice = augment.autoaugment_choice(tf.constant(uniforms), translate_const=100.0)
    ops, arguments = choice.ops.numpy(), choice.arguments.numpy()
    index = np.floor(uniforms[:, 0].astype(np.float64) * 25).astype(int)
    for number, sub_policy in enumerate(policies.get_policy("v0")):
        for position, step in enumerate(sub_policy):
            rows = (index == number) & (ops[:, position] == policies.OPS.index(step.op))
            got = arguments[rows, position]
            expected = policies.argument(step.op, step.level, translate_const=100.0)
            np.testing.assert_array_equal(np.abs(got), expected)
            if step.op in policies.SIGNED_OPS and expected:
                assert (got < 0).mean() == pytest.approx(0.5, abs=_tolerance(0.5, len(got)))
            else:
                assert (got >= 0).all()


def test_randaugment_draws_seventeen_choices_uniformly_and_layers_independently():
    uniforms = tf.constant(_uniforms(DRAWS, 2, 4, seed=2))
    choice = augment.randaugment_choice(uniforms, magnitude=15)
    ops, arguments = choice.ops.numpy(), choice.arguments.numpy()
    pairs = np.bincount(ops[:, 0] * 17 + ops[:, 1], minlength=17 * 17) / DRAWS
    assert pairs == pytest.approx(np.full(289, 1 / 289), abs=_tolerance(1 / 289, DRAWS))
    for number, op in enumerate(policies.OPS):
        got = arguments[ops == number]
        expected = policies.argument(op, 15, translate_const=100.0, cutout_const=40.0)
        np.testing.assert_array_equal(np.abs(got), expected)
        share = 0.5 if op in policies.SIGNED_OPS else 0.0
        assert (got < 0).mean() == pytest.approx(share, abs=_tolerance(share, len(got)))
    assert choice.centres.shape == (DRAWS, 2, 2)


def test_the_largest_uniform_stays_within_the_tables():
    largest = tf.fill([9], tf.constant(np.nextafter(np.float32(1), np.float32(0))))
    augment.autoaugment_choice(largest)
    ops = augment.randaugment_choice(tf.reshape(largest[:8], [2, 4])).ops
    assert ops.numpy().tolist() == [IDENTITY, IDENTITY]


def test_seeded_uniforms_differ_between_neighbouring_seeds():
    # The trainer's seeds may differ by one in one number only.
    seeds = [(a, b) for a in range(40) for b in range(40)]
    draws = np.stack([augment._uniforms(tf.constant(seed), [9]).numpy() for seed in seeds])
    assert draws.mean(axis=0) == pytest.approx(np.full(9, 0.5), abs=5 / (12 * 1600) ** 0.5)
    assert np.abs(np.corrcoef(draws.T) - np.eye(9)).max() < 5 / 1600**0.5
    neighbours = np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]
    assert abs(neighbours) < 5 / 1600**0.5


# --- doing it -----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["autoaugment", "randaugment"])
def compiled(request):
    function = augment.make_augmenter(request.param)
    signature = [tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([2], tf.int32)]
    return tf.function(function, input_signature=signature)


def test_a_seed_decides_the_image(compiled):
    image = _image()
    first = [compiled(image, (7, number)).numpy() for number in range(30)]
    again = [compiled(image, (7, number)).numpy() for number in reversed(range(30))]
    for one, other in zip(first, reversed(again), strict=True):
        np.testing.assert_array_equal(one, other)
    # Not 30: some sub-policies have few outcomes, and no step at all is one of them.
    assert len({result.tobytes() for result in first}) > 12
    other_seed = [compiled(image, (8, number)).numpy() for number in range(30)]
    same = sum(np.array_equal(a, b) for a, b in zip(first, other_seed, strict=True))
    assert same < 8


def test_graph_and_eager_agree(compiled):
    image = tf.constant(_image(31, 57))
    for number in range(12):
        seed = tf.constant([3, number])
        eager = compiled.python_function(image, seed)
        np.testing.assert_array_equal(compiled(image, seed).numpy(), eager.numpy())


def test_any_order_and_parallelism_of_a_tf_data_map_gives_the_same_images():
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
def test_apply_op_runs_the_operation_of_that_number(op):
    image = tf.constant(_image() // 2 + 90)  # within 90–217: each operation has something to do
    argument = policies.argument(op, 7, translate_const=40, cutout_const=20)
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


def test_functions_traced_once_survive_clear_session_and_serve_other_graphs():
    image, seed = tf.constant(_image(16, 16)), tf.constant([1, 3])
    before = augment.randaugment(image, seed).numpy()
    keras.utils.clear_session()
    for wrap in (lambda f: f, tf.function, tf.function):
        np.testing.assert_array_equal(wrap(augment.randaugment)(image, seed).numpy(), before)


def test_static_shape_is_the_inputs():
    augmenter = augment.make_augmenter("randaugment", num_layers=1)
    for shape in ([None, None, 3], [24, None, 3], [24, 24, 3]):
        graph = tf.function(augmenter).get_concrete_function(
            tf.TensorSpec(shape, tf.uint8), tf.TensorSpec([2], tf.int32)
        )
        assert graph.structured_outputs.shape.as_list() == shape
        assert graph.structured_outputs.dtype == tf.uint8


def test_a_policy_may_be_given_as_data():
    policy = ((policies.Step("Invert", 1.0, 0),), (policies.Step("Invert", 1.0, 0),))
    image = _image()
    got = augment.autoaugment(image, tf.constant([1, 2]), policy)
    np.testing.assert_array_equal(got.numpy(), 255 - image)


def test_make_augmenter_options_reach_the_operations():
    assert augment.available_augmenters() == ("autoaugment", "randaugment", "none")
    assert augment.make_augmenter("none") is None
    made = augment.make_augmenter("randaugment", num_layers=3, magnitude=15, cutout_const=8)
    assert isinstance(made, functools.partial)
    assert made.keywords == {"num_layers": 3, "magnitude": 15, "cutout_const": 8}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: augment.make_augmenter("AutoAugmnt"), "Did you mean 'autoaugment'"),
        (lambda: augment.make_augmenter("autoaugment", policy="v1"), "Did you mean 'v0'"),
        (lambda: augment.make_augmenter("randaugment", magnitude=-1), "level .* not -1"),
        (lambda: augment.make_augmenter("randaugment", num_layers=0), "num_layers .* not 0"),
        (lambda: augment.make_augmenter("autoaugment", translate_const=-1.0), "translate_const"),
        (lambda: augment.autoaugment(np.zeros((4, 4, 3), np.float32), (1, 2)), "float32"),
        (lambda: augment.randaugment(np.zeros((2, 4, 4, 3), np.uint8), (1, 2)), "before batch"),
        (lambda: augment.randaugment(np.zeros((4, 4, 1), np.uint8), (1, 2)), r"\(4, 4, 1\)"),
        (
            lambda: augment.autoaugment_choice(
                tf.zeros([9]), ((policies.Step("Invert", 1, 0),), policies.get_policy("v0")[0])
            ),
            "one and the same length",
        ),
    ],
)
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
