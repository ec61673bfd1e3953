"""MixUp and CutMix against NumPy in float64, λ against SciPy, random bits against Random123."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from convoy.dataloader.augment import augmenter, mixing

CLASSES = 7


def _batch(size: int = 6, height: int = 20, width: int = 30, seed: int = 0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (size, height, width, 3), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, size).astype(np.int32)
    seeds = rng.integers(-(2**31), 2**31, (size, 2)).astype(np.int32)
    return images, labels, np.ones(size, np.float32), seeds


def _one_hot(labels: np.ndarray) -> np.ndarray:
    return np.eye(CLASSES)[labels]


def _many_seeds(count: int) -> np.ndarray:
    """Returns seeds like a trainer's: one number is fixed, the other counts."""
    return np.stack([np.full(count, 3), np.arange(count)], axis=1).astype(np.int32)


# --- random numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_published_test_vectors(key, counter, expected):
    def words(pair):
        return tuple(tf.constant([word], tf.uint32) for word in pair)

    got = tf.concat(mixing.threefry2x32(words(key), words(counter)), axis=0)
    assert got.numpy().tolist() == list(expected)


def test_uniforms_are_uniform_independent_and_determined_by_their_seed():
    count = 50_000
    seeds = _many_seeds(count)
    uniforms = mixing.example_uniforms(seeds).numpy()
    assert uniforms.shape == (count, 4)
    assert uniforms.min() >= 0
    assert uniforms.max() < 1
    for column in uniforms.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
    assert np.abs(np.corrcoef(uniforms.T) - np.eye(4)).max() < 5 / count**0.5
    assert abs(np.corrcoef(uniforms[:-1, 0], uniforms[1:, 0])[0, 1]) < 5 / count**0.5
    alone = mixing.example_uniforms(seeds[17:18]).numpy()
    np.testing.assert_array_equal(alone[0], uniforms[17])


def test_mixing_and_augmentation_draw_independent_numbers_from_one_seed():
    seeds = _many_seeds(1500)
    mixed = mixing.example_uniforms(seeds).numpy()
    augmented = np.stack([augmenter._uniforms(tf.constant(seed), [4]).numpy() for seed in seeds])
    cross = np.corrcoef(mixed.T, augmented.T)[:4, 4:]
    assert np.abs(cross).max() < 5 / 1500**0.5


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.4, 1.0, 3.0, 20.0])
def test_beta_quantiles_equal_scipys(alpha):
    got = np.array(mixing.beta_quantiles(alpha))
    expected = stats.beta.ppf(np.linspace(0, 1, len(got)), alpha, alpha)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)
    assert (np.diff(got) >= 0).all()
    np.testing.assert_allclose(got + got[::-1], 1, atol=1e-15)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_lambdas_follow_the_beta_distribution(alpha):
    uniforms = mixing.example_uniforms(_many_seeds(50_000))[:, 0]
    lambdas = mixing.sample_beta(uniforms, mixing.beta_quantiles(alpha)).numpy()
    # By symmetry it suffices to test below 1/2; near 1, float32 rounds many values to 1.
    lower = lambdas[lambdas < 0.5].astype(np.float64)
    assert len(lower) / len(lambdas) == pytest.approx(0.5, abs=5 * 0.5 / len(lambdas) ** 0.5)
    assert stats.kstest(2 * stats.beta.cdf(lower, alpha, alpha), "uniform").pvalue > 1e-4
    upper = lambdas[lambdas > 0.5].astype(np.float64)
    expected = 0.5 + 0.5 * (stats.beta.expect(lambda x: abs(2 * x - 1), (alpha, alpha)))
    assert upper.mean() == pytest.approx(expected, abs=5 * 0.2 / len(upper) ** 0.5)
    edge = mixing.sample_beta(tf.constant([0.0, 1 - 2.0**-24]), mixing.beta_quantiles(alpha))
    assert edge.numpy() == pytest.approx([0.0, 1.0], abs=1e-3)


# --- mixing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 5, 6])
def test_mixup_equals_numpys(size):
    images, labels, _, _ = _batch(size)
    lambdas = np.linspace(0.5, 1.0, size).astype(np.float32)
    mixed = mixing.mix_images(images, mixing.Mixture(lambdas, None, _one_hot(labels)))
    share = lambdas.astype(np.float64)
    x = images.astype(np.float64)
    expected = share[:, None, None, None] * x + (1 - share)[:, None, None, None] * x[::-1]
    np.testing.assert_allclose(mixed.numpy(), expected, rtol=0, atol=1e-4)
    assert mixed.dtype == tf.float32


def test_cutmix_equals_numpys_and_measures_the_area_of_each_image():
    # An earlier fault: areas 1, 1, 0, 0 all got the batch's mean, 1/2.
    images, labels, _, _ = _batch(4)
    boxes = np.array([[0, 0, 20, 30], [0, 0, 20, 30], [3, 4, 3, 9], [5, 10, 15, 25]], np.int32)
    mixed = mixing.mix_images(images, mixing.Mixture(None, boxes, _one_hot(labels)))
    expected = images.copy()
    for i, (top, left, bottom, right) in enumerate(boxes):
        expected[i, top:bottom, left:right] = images[3 - i, top:bottom, left:right]
    np.testing.assert_array_equal(mixed.numpy(), expected)
    own = mixing._outside_shares(boxes, 20, 30).numpy()
    np.testing.assert_allclose(own, [0, 0, 1, 1 - 150 / 600], atol=1e-6)


def test_cutmix_boxes_have_the_papers_sides_and_are_clipped_to_the_image():
    lambdas = tf.constant([0.75, 0.75, 0.75, 1.0, 0.0])
    centres = tf.constant([[0.5, 0.5], [0.0, 0.0], [0.99, 0.99], [0.5, 0.5], [0.5, 0.5]])
    boxes = mixing.cutmix_boxes(lambdas, centres, 20, 31).numpy()
    # √(1 − 0.75) = 1/2: sides of 10 and int(15.5) = 15.
    assert boxes.tolist() == [
        [5, 8, 15, 23],
        [0, 0, 5, 8],
        [14, 23, 20, 31],
        [10, 15, 10, 15],
        [0, 0, 20, 31],
    ]


@pytest.mark.parametrize("alphas", [(0.2, 0.0), (0.0, 1.0), (0.2, 1.0)])
def test_labels_equal_the_share_of_pixels(alphas):
    # Each image has one grey value, so its mean pixel shows each example's share.
    size = 400
    values = np.where(np.arange(size) < size // 2, 200, 0).astype(np.uint8)
    images = np.broadcast_to(values[:, None, None, None], (size, 8, 12, 3))
    labels = (np.arange(size) >= size // 2).astype(np.int32)
    weights, seeds = np.ones(size, np.float32), _many_seeds(size)
    mixed, soft, _ = mixing.make_mixer(*alphas, 2)(images, labels, weights, seeds)
    share_of_class_0 = mixed.numpy().astype(np.float64).mean(axis=(1, 2, 3)) / 200
    np.testing.assert_allclose(soft.numpy()[:, 0], share_of_class_0, atol=1e-5)
    np.testing.assert_allclose(soft.numpy().sum(axis=1), 1, atol=1e-6)


def test_mixup_keeps_the_larger_share_of_each_sample():
    size = 300
    labels = np.arange(size, dtype=np.int32)
    images = np.zeros((size, 2, 2, 3), np.uint8)
    mix = mixing.make_mixer(1.0, 0.0, size)
    _, soft, _ = mix(images, labels, np.ones(size, np.float32), _many_seeds(size))
    own = soft.numpy()[labels, labels]
    assert own.min() >= 0.5
    assert stats.kstest(own, stats.uniform(0.5, 0.5).cdf).pvalue > 1e-4


def test_with_mixup_and_cutmix_each_example_gets_one_of_them():
    size = 1000
    rng = np.random.default_rng(1)
    images = rng.integers(1, 256, (size, 6, 6, 3), dtype=np.uint8)
    labels = np.zeros(size, np.int32)
    weights, seeds = np.ones(size, np.float32), _many_seeds(size)
    mixed = mixing.make_mixer(1.0, 1.0, 3)(images, labels, weights, seeds)[0].numpy()
    only_cut = mixing.make_mixer(0.0, 1.0, 3)(images, labels, weights, seeds)[0].numpy()
    only_up = mixing.make_mixer(1.0, 0.0, 3)(images, labels, weights, seeds)[0].numpy()
    is_cut = (mixed == only_cut).all(axis=(1, 2, 3))
    is_up = np.isclose(mixed, only_up, atol=1e-4).all(axis=(1, 2, 3))
    assert (is_cut | is_up).all()
    assert is_cut.mean() == pytest.approx(0.5, abs=5 * 0.5 / size**0.5)


@pytest.mark.parametrize(
    ("switch_prob", "prob"), [(0.5, 0.8), (0.3, 1.0), (0.9, 0.4), (0.0, 0.7), (1.0, 0.7)]
)
def test_mixing_and_cutmix_occur_with_their_probabilities(switch_prob, prob):
    size = 4000
    rng = np.random.default_rng(1)
    images = rng.integers(1, 256, (size, 4, 4, 3), dtype=np.uint8)
    labels = np.arange(size, dtype=np.int32) % 2
    weights, seeds = np.ones(size, np.float32), _many_seeds(size)
    # Beta(50, 50) stays near 1/2, so only unmixed examples are unchanged.
    mix = mixing.make_mixer(50.0, 50.0, 2, switch_prob=switch_prob, prob=prob)
    mixed, soft, _ = mix(images, labels, weights, seeds)
    mixed = mixed.numpy()
    untouched = (mixed == images).all(axis=(1, 2, 3))
    blended = ((mixed != images) & (mixed != images[::-1])).mean(axis=(1, 2, 3)) > 0.5
    shares = {"none": untouched.mean(), "mixup": blended.mean()}
    expected = {"none": 1 - prob, "mixup": prob * (1 - switch_prob)}
    for name, share in expected.items():
        # The table of quantiles reaches 0 and 1 at its ends: for 1/2048 of the examples.
        noise = 5 * (share * (1 - share) / size) ** 0.5 + 1e-3
        assert shares[name] == pytest.approx(share, abs=noise), name
    own = soft.numpy()[np.arange(size), labels]
    assert (own[untouched] == 1).all()
    assert (own[~untouched] < 1).all()


@pytest.mark.parametrize("alphas", [(0.2, 0.0), (0.0, 1.0), (0.2, 1.0)])
def test_an_example_whose_partner_has_weight_0_is_not_mixed(alphas):
    images, labels, weights, seeds = _batch(8)
    weights[[1, 4]] = 0
    mixed, soft, out_weights = mixing.make_mixer(*alphas, CLASSES)(images, labels, weights, seeds)
    for i in (6, 3):
        np.testing.assert_array_equal(mixed.numpy()[i], images[i])
        np.testing.assert_array_equal(soft.numpy()[i], _one_hot(labels)[i])
    np.testing.assert_array_equal(out_weights, weights)


@pytest.mark.parametrize("alphas", [(0.2, 0.0), (0.0, 1.0), (0.2, 1.0)])
def test_mixing_an_example_and_its_partner_does_not_depend_on_the_batch(alphas):
    images, labels, weights, seeds = _batch(8, seed=3)
    mix = tf.function(mixing.make_mixer(*alphas, CLASSES), reduce_retracing=True, autograph=False)
    whole = mix(images, labels, weights, seeds)
    pair = [2, 5]
    part = mix(images[pair], labels[pair], weights[pair], seeds[pair])
    for one, other in zip(part, whole, strict=True):
        np.testing.assert_array_equal(one.numpy(), tf.gather(other, pair).numpy())
    changed = mix(images, labels, weights, seeds + 1)
    assert (changed[0] != whole[0]).numpy().any()


def test_mixing_works_without_label_smoothing_and_has_the_contracts_dtypes():
    # An earlier fault: mixup without label smoothing multiplied integers by floats.
    images, labels, weights, seeds = _batch()
    mix = mixing.make_mixer(0.2, 0.0, CLASSES)
    data = tf.data.Dataset.from_tensor_slices((images, labels, weights, seeds)).batch(6).map(mix)
    image_spec, label_spec, weight_spec = data.element_spec
    assert image_spec.dtype == label_spec.dtype == weight_spec.dtype == tf.float32
    assert image_spec.shape.as_list() == [None, 20, 30, 3]
    assert label_spec.shape.as_list() == [None, CLASSES]
    assert len(list(data)) == 1


def test_a_mixer_without_mixing_is_none():
    assert mixing.make_mixer(0.0, 0.0, CLASSES) is None
    assert mixing.make_mixer(1.0, 1.0, CLASSES, prob=0.0) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-0.1, 0.0, 5), "mixup_alpha .* not -0.1"),
        ((0.0, float("nan"), 5), "cutmix_alpha .* not nan"),
        ((0.2, 0.0, 0), "num_classes .* not 0"),
    ],
)
def test_invalid_arguments_of_mixing_are_refused_with_the_reason(arguments, message):
    with pytest.raises(ValueError, match=message):
        mixing.make_mixer(*arguments)
    with pytest.raises(ValueError, match="above 0"):
        mixing.beta_quantiles(0.0)
    with pytest.raises(ValueError, match=r"mix_switch_prob .* not 1.5"):
        mixing.make_mixer(1.0, 1.0, 5, switch_prob=1.5)
    with pytest.raises(ValueError, match=r"mix_prob .* not -0.5"):
        mixing.make_mixer(1.0, 1.0, 5, prob=-0.5)
