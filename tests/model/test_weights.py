"""Names, suggestions, loading, exporting and converting. tests/parity compares with PyTorch."""

import keras
import numpy as np
import pytest

from model import build_model, get_arch
from model.weight_files import WeightFile
from model.weight_names import Scheme, recognise, scheme_for, source_names, to_keras, to_torch
from model.weight_suggest import suggest
from model.weights import (
    NAMES,
    WeightFileError,
    convert,
    export_weights,
    freeze_backbone,
    inspect,
    load_pretrained,
    read_weights,
)

TINY = "efficientnet-test"


def tiny_model(seed=1, **options):
    """A model none of whose tensors is constant."""
    model = build_model(TINY, **{"num_classes": 7, "image_size": 32, "seed": seed, **options})
    rng = np.random.default_rng(seed)
    for v in model.weights:
        v.assign(np.asarray(v) + rng.uniform(0.01, 0.2, v.shape))
    return model


def same_weights(first, second):
    return all(
        np.array_equal(np.asarray(a), np.asarray(b))
        for a, b in zip(first.weights, second.weights, strict=True)
    )


# ---- names: as printed by the programs that use them ---------------------------------------------

EFFICIENTNET = {
    "stem_conv/kernel": (
        "conv_stem.weight",
        "features.0.0.weight",
        "stem.conv.weight",
        "efficientnet.embeddings.convolution.weight",
    ),
    "block1a_bn/moving_variance": (
        "blocks.0.0.bn1.running_var",
        "features.1.0.block.0.1.running_var",
        "layers.0.block0.depsep.bn.running_var",
        "efficientnet.encoder.blocks.0.depthwise_conv.depthwise_norm.running_var",
    ),
    "block1a_project_conv/kernel": (
        "blocks.0.0.conv_pw.weight",
        "features.1.0.block.2.0.weight",
        "layers.0.block0.proj.conv.weight",
        "efficientnet.encoder.blocks.0.projection.project_conv.weight",
    ),
    "block2b_se_reduce/bias": (
        "blocks.1.1.se.conv_reduce.bias",
        "features.2.1.block.2.fc1.bias",
        "layers.1.block1.se.squeeze.bias",
        "efficientnet.encoder.blocks.2.squeeze_excite.reduce.bias",
    ),
    "block2b_project_bn/gamma": (
        "blocks.1.1.bn3.weight",
        "features.2.1.block.3.1.weight",
        "layers.1.block1.proj.bn.weight",
        "efficientnet.encoder.blocks.2.projection.project_bn.weight",
    ),
    "top_bn/beta": (
        "bn2.bias",
        "features.4.1.bias",
        "features.bn.bias",
        "efficientnet.encoder.top_bn.bias",
    ),
    "predictions/bias": (
        *("classifier.bias", "classifier.1.bias"),
        *("classifier.fc.bias", "classifier.bias"),
    ),
}
RESNET = {
    "conv1/kernel": ("conv1.weight", "conv1.weight", "resnet.embedder.embedder.convolution.weight"),
    "layer1_0_bn2/beta": (
        "layer1.0.bn2.bias",
        "layers.0.0.bn2.bias",
        "resnet.encoder.stages.0.layers.0.layer.1.normalization.bias",
    ),
    "layer2_0_downsample_conv/kernel": (
        "layer2.0.downsample.0.weight",
        "layers.1.0.downsample.0.weight",
        "resnet.encoder.stages.1.layers.0.shortcut.convolution.weight",
    ),
    "layer2_0_downsample_bn/moving_mean": (
        "layer2.0.downsample.1.running_mean",
        "layers.1.0.downsample.1.running_mean",
        "resnet.encoder.stages.1.layers.0.shortcut.normalization.running_mean",
    ),
    "layer1_0_se_reduce/kernel": (
        "layer1.0.se.fc1.weight",
        "layers.0.0.squeeze.squeeze.weight",
        None,
    ),
    "layer1_0_se_expand/bias": ("layer1.0.se.fc2.bias", "layers.0.0.squeeze.expand.bias", None),
    "fc/bias": ("fc.bias", "fc.bias", "classifier.1.bias"),
}


def test_efficientnet_names():
    paths = [v.path for v in tiny_model().weights]
    programs = ("timm", "torchvision", "nvidia", "transformers")
    for number, program in enumerate(programs):
        names = source_names(paths, scheme_for(program, "efficientnet"))
        assert len(set(names.values())) == len(paths)
        for ours, theirs in EFFICIENTNET.items():
            assert names[ours] == theirs[number]


def test_resnet_names():
    for number, program in enumerate(("torchvision", "nvidia", "transformers")):
        names = source_names(RESNET, scheme_for(program, "resnet"))
        for ours, theirs in RESNET.items():
            assert names.get(ours) == theirs[number]


def test_efficientnet_v2_names():
    """Blocks without a depthwise convolution, which timm and torchvision name differently."""
    paths = ["block1a_project_conv/kernel", "block2a_expand_bn/gamma", "block2a_project_bn/beta"]
    paths += ["block2a_expand_conv/kernel", "block2a_project_conv/kernel"]
    paths += ["block4a_expand_conv/kernel", "block4a_dwconv2/kernel", "block4a_bn/beta"]
    expected = {
        "timm": [
            *("blocks.0.0.conv.weight", "blocks.1.0.bn1.weight", "blocks.1.0.bn2.bias"),
            *("blocks.1.0.conv_exp.weight", "blocks.1.0.conv_pwl.weight"),
            *("blocks.3.0.conv_pw.weight", "blocks.3.0.conv_dw.weight", "blocks.3.0.bn2.bias"),
        ],
        "torchvision": [
            *("features.1.0.block.0.0.weight", "features.2.0.block.0.1.weight"),
            *("features.2.0.block.1.1.bias", "features.2.0.block.0.0.weight"),
            *("features.2.0.block.1.0.weight", "features.4.0.block.0.0.weight"),
            *("features.4.0.block.1.0.weight", "features.4.0.block.1.1.bias"),
        ],
    }
    for program, names in expected.items():
        assert list(source_names(paths, Scheme(program, "efficientnet")).values()) == names


def test_older_nvidia_names():
    names = {"conv1.weight", "layer1.0.conv1.weight", "layer1.0.squeeze.squeeze.weight"}
    scheme = recognise(names)
    assert scheme.program == "nvidia"
    ours = ["layer1_0_conv1/kernel", "layer1_0_se_reduce/kernel"]
    assert set(source_names(ours, scheme).values()) == names - {"conv1.weight"}


def test_layouts():
    rng = np.random.default_rng(0)
    for path, theirs, shape in (
        ("x_conv/kernel", (8, 3, 5, 7), (5, 7, 3, 8)),
        ("x_dwconv/kernel", (8, 1, 3, 5), (3, 5, 8, 1)),
        ("fc/kernel", (10, 4), (4, 10)),
        ("x_se_reduce/kernel", (2, 8), (1, 1, 8, 2)),
        ("x_bn/gamma", (4,), (4,)),
    ):
        array = rng.normal(size=theirs)
        ours = to_keras(array, path, shape)
        assert ours.shape == shape
        scheme = scheme_for("nvidia", "resnet")
        np.testing.assert_array_equal(to_torch(ours, path, scheme), array)
        assert to_keras(array, path, (9, *shape[1:])) is None
    # Element by element: output 2, input 1, row 3, column 4.
    array = rng.normal(size=(8, 3, 5, 7))
    assert to_keras(array, "x_conv/kernel", (5, 7, 3, 8))[3, 4, 1, 2] == array[2, 1, 3, 4]


# ---- what a file implies ------------------------------------------------------------------------


def suggestion(names, arch, path="weights.pth", **options):
    from pathlib import Path

    arrays = {name: np.zeros((4, 3, 3, 3), np.float32) for name in names}
    facts = options.pop("facts", {})
    file = WeightFile(Path(path), "torch", "raw", arrays, facts)
    return suggest(file, get_arch(arch), **options)[1].arguments


TIMM = ("conv_stem.weight", "blocks.0.0.conv_dw.weight")
TORCHVISION = ("features.0.0.weight", "features.1.0.block.0.0.weight")
SYMMETRIC = {"padding": "symmetric", "bn_epsilon": 1e-5, "bn_momentum": 0.9}
SAME = {"padding": "same", "bn_epsilon": 1e-3, "bn_momentum": 0.9}


def test_suggestions_for_pytorch_files(tmp_path):
    b0 = "efficientnet-b0"
    assert suggestion(TIMM, b0) == SYMMETRIC
    assert suggestion(TIMM, b0, "tf_efficientnet_b0_aa-827b6e33.pth") == SAME
    assert suggestion(TIMM, b0, facts={"arch": "tf_efficientnet_b0"}) == SAME
    assert suggestion(TIMM, b0, padding="same") == SAME
    half = {"mean": [127.5] * 3, "std": [127.5] * 3}
    assert suggestion(TIMM, "efficientnet-b8", "tf_efficientnet_b8_ap-00e169fa.pth") == SAME | half
    assert suggestion(TORCHVISION, b0) == SYMMETRIC
    slow = {"padding": "symmetric", "bn_epsilon": 1e-3, "bn_momentum": 0.99}
    assert suggestion(TORCHVISION, "efficientnet-b5") == slow
    assert suggestion(("stem.conv.weight", "layers.0.block0.se.squeeze.bias"), b0) == slow

    # timm's config.json, as on its hub, lies beside the weights.
    config = '{"architecture": "tf_efficientnet_b0", "pretrained_cfg": {"mean": [0.5, 0.5, 0.5]}}'
    (tmp_path / "config.json").write_text(config)
    expected = SAME | {"mean": [127.5] * 3}
    assert suggestion(TIMM, b0, tmp_path / "model.safetensors") == expected


def test_suggested_squeeze_ratio(tmp_path):
    from pathlib import Path

    def ratio(units):
        names = ("conv1.weight", "layer1.0.conv1.weight")
        arrays = {name: np.zeros((64, 3, 7, 7)) for name in names}
        for stage, (filters, squeezed) in enumerate(zip((256, 512), units, strict=True), start=1):
            arrays[f"layer{stage}.0.se.fc1.weight"] = np.zeros((squeezed, filters, 1, 1))
        file = WeightFile(Path("x.pth"), "torch", "raw", arrays)
        return suggest(file, get_arch("se-resnext101-32x4d"))[1].arguments.get("se_ratio")

    assert ratio((16, 32)) == 1 / 16
    assert ratio((16, 16)) is None


@pytest.mark.parametrize(
    ("names", "arch", "reason"),
    [
        (("conv1.weight", "layer1.0.conv1.weight"), TINY, "family resnet"),
        (TIMM, "resnet50", "family efficientnet"),
        (("conv1_conv/kernel",), "resnet50", "another network than v1.5"),
        (("layer0.conv1.weight",), "resnet50", "another network"),
        (("encoder.layer.0.attention.weight",), "resnet50", "no known EfficientNet or ResNet"),
    ],
)
def test_another_family_is_refused_with_the_reason(names, arch, reason):
    with pytest.raises(WeightFileError, match=reason):
        suggestion(names, arch)


# ---- loading ------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("names", NAMES)
def test_export_and_load(names, padding, tmp_path):
    options = {"padding": padding, "bn_epsilon": 2e-4, "mean": [1.0, 2, 3], "std": [4.0, 5, 6]}
    model = tiny_model(**options)
    path = tmp_path / "weights.safetensors"
    export_weights(model, TINY, path, names)
    hint = inspect(path, TINY)
    assert hint.num_classes == 7
    assert {k: hint.arguments[k] for k in options} == options
    again = build_model(TINY, num_classes=7, image_size=32, seed=2, **hint.arguments)
    report = load_pretrained(again, TINY, path, strict=True)
    assert len(report.loaded) == len(model.weights)
    assert not report.warnings
    assert same_weights(model, again)


def test_another_number_of_classes(tmp_path):
    path = tmp_path / "weights.safetensors"
    source = tiny_model()
    export_weights(source, TINY, path, "timm")
    model = build_model(TINY, num_classes=3, image_size=32, seed=2)
    before = {v.path: np.asarray(v) for v in model.weights}
    report = load_pretrained(model, TINY, path)
    assert report.head_replaced
    assert report.unmatched_model == ["predictions/kernel", "predictions/bias"]
    assert report.unmatched_file == ["classifier.bias", "classifier.weight"]
    assert "new classifier for 3 classes: the file has 7 classes" in report.lines()
    for v, given in zip(model.weights, source.weights, strict=True):
        expected = before[v.path] if v.path.startswith("predictions") else np.asarray(given)
        np.testing.assert_array_equal(np.asarray(v), expected)

    fresh = build_model(TINY, num_classes=3, image_size=32, seed=2)
    with pytest.raises(WeightFileError, match="strict loading asks: new classifier"):
        load_pretrained(fresh, TINY, path, strict=True)
    assert all(np.array_equal(np.asarray(v), before[v.path]) for v in fresh.weights)


def test_everything_unmatched_is_listed(tmp_path):
    from safetensors.numpy import load_file, save_file

    path = tmp_path / "weights.safetensors"
    export_weights(tiny_model(), TINY, path, "timm")
    arrays = load_file(path)
    arrays["extra.weight"] = np.zeros(3, np.float32)
    del arrays["bn2.bias"]
    arrays["bn2.weight"] = np.zeros(5, np.float32)
    save_file(arrays, path)
    report = load_pretrained(tiny_model(), TINY, path)
    assert sorted(report.unmatched_file) == ["bn2.weight", "extra.weight"]
    assert report.unmatched_model == ["top_bn/beta"]
    assert report.mismatched == ["top_bn/gamma (48,) / bn2.weight (5,)"]
    for name in ("extra.weight", "top_bn/beta", "bn2.weight (5,)"):
        assert any(name in line for line in report.lines())


def test_another_architecture_is_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    export_weights(tiny_model(), TINY, path)
    with pytest.raises(WeightFileError, match=f"it holds {TINY}"):
        inspect(path, "efficientnet-b0")
    export_weights(tiny_model(), TINY, path, "timm")
    arrays = read_weights(path).arrays
    from safetensors.numpy import save_file

    save_file({k: v[..., :1] for k, v in arrays.items()}, path)
    with pytest.raises(WeightFileError, match=r"only \d+ of its \d+ tensors"):
        load_pretrained(tiny_model(), TINY, path)


def test_a_model_built_otherwise_is_said(tmp_path):
    path = tmp_path / "weights.safetensors"
    export_weights(tiny_model(padding="symmetric"), TINY, path)
    report = load_pretrained(tiny_model(), TINY, path)
    assert report.warnings == [
        "warning: built with padding same, but the file implies symmetric",
    ]


def test_freeze_backbone():
    model = tiny_model()
    freeze_backbone(model, TINY)
    assert [v.path for v in model.trainable_weights] == ["predictions/kernel", "predictions/bias"]
    freeze_backbone(model, TINY, frozen=False)
    assert len(model.trainable_weights) > 2


# ---- keras.applications -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def applications(tmp_path_factory):
    """keras.applications' B0 in all the formats Keras has, adapted to some images."""
    import h5py

    keras.utils.set_random_seed(0)
    model = keras.applications.EfficientNetB0(
        weights=None, input_shape=(64, 64, 3), classes=5, classifier_activation=None
    )
    images = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3)).astype("float32")
    normalization = next(x for x in model.layers if isinstance(x, keras.layers.Normalization))
    adapted = ([0.4, 0.5, 0.6], [0.05, 0.06, 0.07], 3)
    for v, value in zip(normalization.weights, adapted, strict=True):
        v.assign(value)
    normalization.finalize_state()
    rng = np.random.default_rng(1)
    for v in model.trainable_variables:
        v.assign(np.asarray(v) + rng.uniform(-0.2, 0.2, v.shape) * (v.name != "kernel"))
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    model(images, training=True)
    for layer in norms:
        layer.momentum = 0.99
    folder = tmp_path_factory.mktemp("applications")
    model.save(folder / "whole.keras")
    model.save_weights(folder / "only.weights.h5")
    model.save(folder / "whole.h5")
    with h5py.File(folder / "whole.h5") as whole, h5py.File(folder / "only.h5", "w") as only:
        for key, value in whole["model_weights"].attrs.items():
            only.attrs[key] = value
        for key in whole["model_weights"]:
            whole.copy(f"model_weights/{key}", only)
    return folder, images, np.asarray(model(images, training=False))


@pytest.mark.parametrize("name", ["whole.keras", "only.weights.h5", "whole.h5", "only.h5"])
def test_files_of_keras_applications(applications, name):
    folder, images, expected = applications
    hint = inspect(folder / name, "efficientnet-b0")
    assert hint.num_classes == 5
    assert hint.arguments["padding"] == "same"
    assert (hint.arguments["bn_epsilon"], hint.arguments["bn_momentum"]) == (1e-3, 0.99)
    np.testing.assert_allclose(hint.arguments["mean"], 255 * np.array([0.4, 0.5, 0.6]), rtol=1e-6)
    np.testing.assert_allclose(hint.arguments["std"], 255 * np.sqrt([0.05, 0.06, 0.07]), rtol=1e-6)
    model = build_model("efficientnet-b0", num_classes=5, image_size=64, **hint.arguments)
    report = load_pretrained(model, "efficientnet-b0", folder / name, strict=True)
    assert not report.warnings
    logits = np.asarray(model(images, training=False))
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()


def test_the_imagenet_files_normalise_by_the_standard_deviation():
    """Their `variance` holds deviations, whose root the published model divides by twice."""
    from pathlib import Path

    from model.catalog import IMAGENET_MEAN, IMAGENET_STD

    arrays = {"stem_conv/kernel": np.zeros((3, 3, 3, 32)), "block1a_bn/gamma": np.zeros(32)}
    arrays["normalization/mean"] = np.array([0.485, 0.456, 0.406], np.float32)
    arrays["normalization/variance"] = np.array([0.229, 0.224, 0.225], np.float32)
    file = WeightFile(Path("efficientnetb0.h5"), "keras", "raw", arrays)
    arguments = suggest(file, get_arch("efficientnet-b0"))[1].arguments
    np.testing.assert_allclose(arguments["mean"], IMAGENET_MEAN, rtol=1e-6)
    np.testing.assert_allclose(arguments["std"], IMAGENET_STD, rtol=1e-6)


# ---- converting ---------------------------------------------------------------------------------


def test_convert_a_checkpoint_and_onwards(trained, tmp_path):
    first = tmp_path / "plain.safetensors"
    reports = [convert(trained.model_dir, first, ema=True)]
    for name, names in (
        ("a.keras", "convoy"),
        ("b.weights.h5", "convoy"),
        ("c.safetensors", "timm"),
    ):
        reports.append(convert(first, tmp_path / name, names=names))
    arch = get_arch(TINY).name
    for name in ("a.keras", "b.weights.h5", "c.safetensors"):
        reports.append(convert(tmp_path / name, tmp_path / f"{name}.safetensors", arch=arch))
    for report in reports:
        assert report.max_logit > 0.01
        assert report.max_logit_difference == pytest.approx(0, abs=1e-5 * report.max_logit)
        assert any("logits differ by at most" in line for line in report.lines())
    original = read_weights(trained.model_dir, ema=True).arrays
    for name in ("a.keras", "b.weights.h5", "c.safetensors"):
        arrays = read_weights(tmp_path / f"{name}.safetensors").arrays
        assert arrays.keys() == original.keys()
        assert all(np.array_equal(arrays[k], original[k]) for k in original)


def test_convert_asks_for_what_it_lacks(tmp_path):
    path = tmp_path / "x.weights.h5"
    export_weights(tiny_model(), TINY, path)
    with pytest.raises(ValueError, match="give --arch"):
        convert(path, tmp_path / "y.keras")
    for target, names, problem in (
        ("y.pth", "timm", "must end in"),
        ("y.keras", "timm", "go into a .safetensors"),
        ("y.safetensors", "paddle", "names must be one of"),
    ):
        with pytest.raises(ValueError, match=problem):
            convert(path, tmp_path / target, arch=TINY, names=names)
    assert [p.name for p in tmp_path.iterdir()] == ["x.weights.h5"]
