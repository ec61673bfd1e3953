"""EfficientNets against keras.applications: logits, and batch statistics of a training step."""

import keras
import numpy as np
import pytest

from convoy.model import build_model, catalog

CLASSES, COUNT = 20, 8
JUDGES = {f"efficientnet-b{i}": getattr(keras.applications, f"EfficientNetB{i}") for i in range(8)}
JUDGES |= {
    f"efficientnetv2-{size.lower()}": getattr(keras.applications, f"EfficientNetV2{size}")
    for size in ("B0", "B1", "B2", "B3", "S", "M", "L")
}


V2 = ("b0", "b1", "b2", "m", "l")


def pixels(size, seed):
    """Returns coloured patches with noise: after pooling they differ, unlike plain noise."""
    rng = np.random.default_rng(seed)
    index = np.arange(size) * 4 // size
    patches = rng.integers(0, 256, (COUNT, 4, 4, 3))[:, index][:, :, index]
    noise = rng.integers(-64, 65, (COUNT, size, size, 3))
    return np.clip(patches + noise, 0, 255).astype(np.uint8)


def for_theirs(name, images):
    """Returns images that reach the stem of their model with the values that ours normalises to.

    The Normalization of B0 to B7 is the identity after x / 255 until it is adapted; V2-S to V2-L
    compute x / 128 - 1, and V2-B0 to V2-B3 normalise as ours does.
    """
    if "v2-b" in name:
        return images.astype("float32")
    x = (images - np.array(catalog.IMAGENET_MEAN)) / np.array(catalog.IMAGENET_STD)
    return (128 * (x + 1) if "v2" in name else 255 * x).astype("float32")


def norms(model):
    return [la for la in model.layers if isinstance(la, keras.layers.BatchNormalization)]


def randomise(model, batch, seed=0):
    """Sets biases, gammas, betas and statistics to values that make every fault visible.

    The statistics are close to those of a batch that the comparison does not use. Residual branches
    are scaled down, as after training; otherwise the deepest models amplify rounding errors without
    bound.
    """
    rng = np.random.default_rng(seed)
    added = {la.name.removesuffix("_add") for la in model.layers if la.name.endswith("_add")}
    for v in model.variables:
        if v.name in ("gamma", "beta", "bias"):
            v.assign(v + rng.uniform(-0.4, 0.4, v.shape))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    momenta = [layer.momentum for layer in norms(model)]
    for layer in norms(model):
        block = layer.name.removesuffix("_project_bn")
        if block != layer.name and block in added:
            layer.gamma.assign(0.2 * layer.gamma)
        layer.momentum = 0.0
    model(batch, training=True)
    for layer, momentum in zip(norms(model), momenta, strict=True):
        layer.momentum = momentum
        mean, variance = layer.moving_mean, layer.moving_variance
        mean.assign(mean + 0.1 * np.sqrt(variance) * rng.uniform(-1, 1, mean.shape))
        variance.assign(variance * np.exp(rng.uniform(-0.1, 0.1, variance.shape)))


def statistics(model):
    return {
        (la.name, kind): np.float64(getattr(la, f"moving_{kind}"))
        for la in norms(model)
        for kind in ("mean", "variance")
    }


def train_once(model, batch):
    """Returns the logits in training mode and the batch statistics that the step used."""
    before = statistics(model)
    logits = np.asarray(model(batch, training=True))
    after = statistics(model)
    rate = {layer.name: 1 - layer.momentum for layer in norms(model)}
    return logits, {k: before[k] + (after[k] - before[k]) / rate[k[0]] for k in before}


def relative(ours, theirs):
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def with_weights(layers):
    """Returns layers with weights, by name; Normalization is left out, as ours has none."""
    kind = keras.layers.Normalization
    return {la.name: la for la in layers if la.weights and not isinstance(la, kind)}


@pytest.mark.parametrize(
    ("name", "size"),
    [
        # 97 gives odd sizes at every stage, 64 even ones
        ("efficientnet-b0", 97),
        pytest.param("efficientnet-b0", 64, marks=pytest.mark.slow),
        pytest.param("efficientnetv2-s", 96, marks=pytest.mark.slow),
        pytest.param("efficientnetv2-b3", 64, marks=pytest.mark.slow),
        *(pytest.param(f"efficientnetv2-{x}", 96, marks=pytest.mark.slow) for x in V2),
        *(pytest.param(f"efficientnet-b{i}", 96, marks=pytest.mark.slow) for i in range(1, 8)),
    ],
)
def test_logits_and_batch_statistics_equal_keras_applications(name, size):
    keras.utils.set_random_seed(size)
    theirs = JUDGES[name](
        weights=None, input_shape=(size, size, 3), classes=CLASSES, classifier_activation=None
    )
    options = {"dropout": 0.0, "stochastic_depth": 0.0}
    ours = build_model(name, num_classes=CLASSES, image_size=size, **options)
    randomise(theirs, for_theirs(name, pixels(size, seed=1)))
    source, target = with_weights(theirs.layers), with_weights(ours.layers)
    assert source.keys() == target.keys()
    for layer, theirs_layer in source.items():
        target[layer].set_weights(theirs_layer.get_weights())
    for mine, judge in zip(norms(ours), norms(theirs), strict=True):
        assert (mine.momentum, mine.epsilon) == (judge.momentum, judge.epsilon)

    images = pixels(size, seed=0)
    batch = for_theirs(name, images)
    expected = np.asarray(theirs(batch, training=False))
    logits = np.asarray(ours(images, training=False))
    # The logits depend on the images.
    assert expected.std(axis=0).mean() > 0.01 * np.abs(expected).max()
    difference = relative(logits, expected)

    expected_training, expected_statistics = train_once(theirs, batch)
    training, found = train_once(ours, images)
    worst = 0.0
    for key, theirs_value in expected_statistics.items():
        if key[1] == "variance":  # Keras' variance is biased, ours unbiased
            n = np.prod([COUNT, *target[key[0]].output.shape[1:3]])
            theirs_value = theirs_value * n / (n - 1)
        worst = max(worst, relative(found[key], theirs_value))
    in_training = relative(training, expected_training)
    print(f"{name} {size} px: logits {difference:.1e}, training {in_training:.1e}, {worst:.1e}")
    assert max(difference, in_training, worst) < 1e-4
