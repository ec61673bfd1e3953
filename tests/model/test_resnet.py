"""The ResNet family: shapes, counts, geometry, initial weights, grouped convolutions."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.tree import flatten

from convoy.model import arithmetic, build_model, catalog, get_arch, resnet
from convoy.model.layers import FusedBatchNorm
from convoy.model.options import ResNetOptions
from convoy.model.resnet import GroupedConv2D
from convoy.model.stochastic_depth import StochasticDepth
from convoy.model.sync_batch_norm import SyncBatchNorm

pytestmark = pytest.mark.usefixtures("keras_policy")

SMALL = {"num_classes": 5, "image_size": 64, "seed": 0}


@pytest.fixture(scope="module")
def resnet50():
    return build_model("resnet50", **SMALL)


@pytest.fixture(scope="module")
def se_resnext():
    return tiny_se_resnext(seed=0)


def tiny_se_resnext(**options):
    """Returns se-resnext101-32x4d with two blocks, which has every part of the family."""
    arch = replace(get_arch("se-resnext101-32x4d"), repeats=(1, 1))
    return resnet.build(arch, ResNetOptions(num_classes=5, image_size=32, **options))


def pixels(size=64, count=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def find(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


# ---- whole models -----------------------------------------------------------------------------


def test_layers_have_torchvisions_names_and_shapes(resnet50):
    shapes = {layer.name: flatten(layer.output)[0].shape[1:] for layer in resnet50.layers}
    assert shapes["conv1"] == (32, 32, 64)
    assert shapes["maxpool"] == (16, 16, 64)
    assert shapes["layer1_0_conv1"] == (16, 16, 64)
    assert shapes["layer1_2_bn3"] == (16, 16, 256)
    assert shapes["layer4_2_bn3"] == (2, 2, 2048)
    weighted = [layer.name for layer in resnet50.layers if layer.weights]
    block = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3")
    expected = {"conv1", "bn1", "fc"}
    for stage, repeats in enumerate((3, 4, 6, 3), start=1):
        expected |= {f"layer{stage}_{i}_{part}" for i in range(repeats) for part in block}
        expected |= {f"layer{stage}_0_downsample_{part}" for part in ("conv", "bn")}
    assert set(weighted) == expected


def test_resnet_d_has_a_deep_stem_and_averaging_shortcuts():
    model = build_model("resnet18d", num_classes=10, image_size=72, seed=0)
    shapes = {layer.name: flatten(layer.output)[0].shape[1:] for layer in model.layers}
    stem = [(f"conv1_{n}", (36, 36, filters)) for n, filters in ((0, 32), (3, 32), (6, 64))]
    assert [(name, shapes[name]) for name, _ in stem] == stem
    assert shapes["maxpool"] == (18, 18, 64)
    assert shapes["layer3_0_downsample_pool"] == (5, 5, 128), (
        "9 rows are pooled to 5; the last one is alone"
    )
    assert "layer1_0_downsample_pool" not in shapes
    pool = model.get_layer("layer3_0_downsample_pool")
    column = np.arange(9, dtype="float32").reshape(1, 9, 1, 1) * np.ones((1, 1, 9, 128), "f4")
    assert np.asarray(pool(column))[0, :, 0, 0].tolist() == [0.5, 2.5, 4.5, 6.5, 8.0]


def test_resnet_rs_pools_by_a_convolution_and_squeezes_to_a_quarter_of_the_channels():
    arch = get_arch("resnetrs50")
    assert {b.squeeze_units / b.filters_out for b in catalog.resnet_blocks(arch)} == {0.25}
    shapes = arithmetic.weight_shapes(arch)
    assert shapes["maxpool_0/kernel"] == (3, 3, 64, 64)
    assert shapes["layer1_0_se_reduce/kernel"] == (1, 1, 256, 64)


def test_the_stride_is_in_the_3x3_convolution(resnet50):
    strided = {
        c.name: c.kernel_size for c in find(resnet50, keras.layers.Conv2D) if max(c.strides) > 1
    }
    assert strided == {
        "conv1": (7, 7),
        **{f"layer{stage}_0_conv2": (3, 3) for stage in (2, 3, 4)},
        **{f"layer{stage}_0_downsample_conv": (1, 1) for stage in (2, 3, 4)},
    }
    basic = build_model("resnet18", **SMALL)
    strided = [c.name for c in find(basic, keras.layers.Conv2D) if max(c.strides) > 1]
    assert "layer2_0_conv1" in strided
    assert "layer2_0_conv2" not in strided


def test_defaults_of_the_family_and_overridden_options(resnet50):
    norms = find(resnet50, FusedBatchNorm)
    assert {(n.momentum, n.epsilon) for n in norms} == {(0.9, 1e-5)}
    assert not find(resnet50, (keras.layers.Dropout, StochasticDepth))
    assert not any(conv.use_bias for conv in find(resnet50, keras.layers.Conv2D))
    model = tiny_se_resnext(
        dropout=0.3, stochastic_depth=0.2, activation="gelu", batch_norm="syncbn", bn_momentum=0.7
    )
    assert model.get_layer("dropout").rate == 0.3
    assert [layer.rate for layer in find(model, StochasticDepth)] == [pytest.approx(0.1)]
    assert model.get_layer("layer2_0_se_act").get_config()["activation"] == "gelu"
    norms = find(model, keras.layers.BatchNormalization)
    assert {(type(n), n.momentum) for n in norms} == {(SyncBatchNorm, 0.7)}
    assert np.isfinite(model(pixels(32), training=True)).all()


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        ("resnet50", {"image_size": 31}, "at least 32 pixels"),
        ("resnet50", {"num_classes": 0}, "num_classes"),
        ("resnet50", {"padding": "valid"}, "padding must be"),
        ("resnet50", {"batch_norm": "group"}, "not 'group'"),
        ("resnet50", {"weight_init": "fan_avg"}, "weight_init"),
        ("resnet50", {"se_ratio": 0.1}, "resnet50 has no squeeze-and-excitation"),
        ("se-resnext101-32x4d", {"se_ratio": 2.0}, "se_ratio must be"),
        ("resnext101-32x8d-basic", {}, "without a definition"),
    ],
)
def test_invalid_options_of_resnet_are_refused(arch, options, message):
    with pytest.raises(ValueError, match=message):
        build_model(arch, **options)


# ---- initial weights ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
def test_convolutions_start_with_an_untruncated_he_normal_distribution(mode):
    model = tiny_se_resnext(weight_init=mode, seed=1)
    for name in ("conv1", "layer2_0_conv1", "layer2_0_conv2", "layer2_0_downsample_conv"):
        kernel = model.get_layer(name).kernel.numpy()
        height, width, depth, filters = kernel.shape  # depth is per group, as in PyTorch
        fan = height * width * (depth if mode == "fan_in" else filters)
        sigma = np.sqrt(2 / fan)
        assert kernel.std() == pytest.approx(sigma, rel=0.05)
        # A truncated normal ends at 2 / 0.88 of these deviations; of an untruncated one 4.6 % of
        # the values lie beyond 2.
        assert np.mean(np.abs(kernel) > 2 * sigma) == pytest.approx(0.0455, abs=0.012)


def test_linear_layers_start_like_pytorchs(resnet50, se_resnext):
    for layer, features in (
        (resnet50.get_layer("fc"), 2048),
        (se_resnext.get_layer("layer2_0_se_reduce"), 512),
        (se_resnext.get_layer("layer2_0_se_expand"), 16),
    ):
        kernel, bias = layer.get_weights()
        bound = features**-0.5
        assert np.abs(kernel).max() <= bound
        assert kernel.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)
        assert 0 < np.abs(bias).max() <= bound


def test_zero_gamma_makes_each_block_equal_its_shortcut_at_the_start(resnet50):
    def zeros(model):
        return {n.name for n in find(model, FusedBatchNorm) if not np.any(n.gamma)}

    assert not zeros(resnet50)
    model = build_model("resnet18", **SMALL, zero_gamma=True)
    assert zeros(model) == {b.name + "_bn2" for b in catalog.resnet_blocks(get_arch("resnet18"))}
    inside = keras.Model(
        model.input, [model.get_layer(n).output for n in ("maxpool", "layer1_1_bn2")]
    )
    before, after = inside(pixels())
    np.testing.assert_array_equal(after, before)


def test_the_seed_determines_the_weights_also_in_a_second_build():
    (one, two, other) = (tiny_se_resnext(seed=seed) for seed in (3, 3, 4))
    for mine, theirs in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert one.to_json() == two.to_json()
    assert np.any(one.get_layer("conv1").kernel != other.get_layer("conv1").kernel)
    seeds = [layer.kernel_initializer.seed for layer in find(one, (keras.layers.Conv2D))]
    assert len(set(seeds)) == len(seeds)


# ---- geometry -----------------------------------------------------------------------------------


def convolve(image, kernel, stride, pad):
    """Convolves an image `(H, W, in)` in NumPy, padded by `pad` on every side."""
    image = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(image, kernel.shape[:2], (0, 1))
    return np.einsum("hwcij,ijco->hwo", windows[::stride, ::stride], kernel)


@pytest.mark.parametrize("size", [64, 65])
def test_stem_and_pooling_are_padded_symmetrically(size):
    model = build_model("resnet18", **(SMALL | {"image_size": size}))
    names = ("normalization", "conv1", "bn1", "maxpool", "layer2_0_conv1", "layer1_1_bn2")
    found = keras.Model(model.input, [model.get_layer(name).output for name in names])(pixels(size))
    image, conv, relu, pool, strided, before = (value.numpy()[0] for value in found)
    expected = convolve(image, model.get_layer("conv1").kernel.numpy(), 2, 3)
    np.testing.assert_allclose(conv, expected, rtol=1e-4, atol=1e-4)
    padded = np.pad(relu, ((1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))[::2, ::2]
    np.testing.assert_array_equal(pool, windows.max((-2, -1)))
    expected = convolve(before, model.get_layer("layer2_0_conv1").kernel.numpy(), 2, 1)
    np.testing.assert_allclose(strided, expected, rtol=1e-4, atol=1e-4)


def test_same_padding_gives_equal_shapes_and_other_logits():
    same = build_model("resnet18", **SMALL, padding="same")
    assert not find(same, keras.layers.ZeroPadding2D)
    symmetric = build_model("resnet18", **SMALL)
    pads = [layer.name for layer in find(symmetric, keras.layers.ZeroPadding2D)]
    assert pads == ["conv1_pad", "maxpool_pad", *[f"layer{i}_0_conv1_pad" for i in (2, 3, 4)]]
    for layer in same.layers:
        for one, other in zip(
            *(flatten(m.get_layer(layer.name).output) for m in (same, symmetric)), strict=True
        ):
            assert one.shape == other.shape, layer.name
    assert not np.allclose(same(pixels()), symmetric(pixels()), atol=1e-4)


# ---- grouped convolution ------------------------------------------------------------------------


def grouped(channels, filters, groups, stride=1, padding="valid"):
    layer = GroupedConv2D(
        filters, 3, strides=stride, groups=groups, use_bias=False, padding=padding
    )
    layer.build((None, 9, 9, channels))
    return layer


def one_by_one(x, kernel, groups, stride, padding):
    parts = zip(tf.split(x, groups, -1), tf.split(kernel, groups, -1), strict=True)
    return tf.concat([tf.nn.conv2d(a, k, stride, padding.upper()) for a, k in parts], -1)


def outputs_and_gradients(function, x, kernel):
    with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        y = function(x)
        loss = tf.reduce_sum(tf.cast(y, tf.float32) ** 2)
    return [y, *tape.gradient(loss, [x, kernel])]


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    ("channels", "filters", "groups", "stride", "padding"),
    [
        (128, 128, 32, 1, "same"),
        (128, 64, 32, 2, "valid"),
        (64, 64, 2, 1, "same"),
        (24, 48, 6, 2, "same"),
    ],
)
def test_a_grouped_convolution_equals_one_convolution_per_group(
    channels, filters, groups, stride, padding, jit
):
    layer = grouped(channels, filters, groups, stride, padding)
    assert layer.kernel.shape == (3, 3, channels // groups, filters)
    x, kernel = tf.random.stateless_normal((2, 9, 9, channels), (0, 1)), layer.kernel.value
    expected = outputs_and_gradients(
        lambda x: one_by_one(x, kernel, groups, stride, padding), x, kernel
    )
    run = tf.function(outputs_and_gradients, jit_compile=jit, autograph=False)
    for mine, theirs in zip(run(layer, x, kernel), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


def test_chunks_give_the_result_of_the_single_operation(monkeypatch):
    layer = grouped(128, 128, 32)
    x = tf.random.stateless_normal((2, 9, 9, 128), (0, 1))
    results = []
    for has_gpu in (False, True):
        monkeypatch.setattr(resnet, "_has_gpu", lambda answer=has_gpu: answer)
        graph = tf.function(lambda: layer(x), jit_compile=True, autograph=False)
        kinds = [op.type for op in graph.get_concrete_function().graph.get_operations()]
        # 32 groups of 4 channels, in chunks of 16 channels.
        assert kinds.count("Conv2D") == (1 if has_gpu else 8)
        results.append(graph())
    np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-5)


# ---- training -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "policy",
    ["float32", "mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)],
)
def test_every_weight_has_a_finite_gradient_and_logits_are_float32(policy):
    keras.config.set_dtype_policy(policy)
    model = tiny_se_resnext(seed=0)
    assert model.get_layer("layer1_0_conv2").compute_dtype == policy.removeprefix("mixed_")
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    values = [variable.value for variable in model.trainable_variables]

    @tf.function(autograph=False)
    def gradients(images):
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits([0, 1], logits))
        return logits, tape.gradient(loss, values)

    logits, found = gradients(pixels(32))
    assert logits.dtype == tf.float32
    for variable, gradient in zip(model.trainable_variables, found, strict=True):
        assert np.isfinite(gradient).all(), variable.path
        assert np.any(gradient), variable.path


def test_a_saved_se_resnext_has_the_same_logits_and_configuration(se_resnext, tmp_path):
    se_resnext.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(pixels(32)), se_resnext(pixels(32)))
    assert loaded.to_json() == se_resnext.to_json()
    assert isinstance(loaded.get_layer("layer1_0_conv2"), GroupedConv2D)
