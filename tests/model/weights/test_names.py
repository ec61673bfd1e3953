"""Names and layouts of the same weights in other programs, and options that a file implies."""

import json
from pathlib import Path

import numpy as np
import pytest

from convoy.model import get_arch
from convoy.model.arithmetic import weight_shapes
from convoy.model.weights import WeightFileError
from convoy.model.weights.files import WeightFile
from convoy.model.weights.names import (
    Scheme,
    recognise,
    scheme_for,
    source_names,
    to_keras,
    to_torch,
)
from convoy.model.weights.suggest import suggest

TINY = "efficientnet-test"


# Names as the other programs print them.
EFFICIENTNET = {
    "stem_conv/kernel": (
        "conv_stem.weight",
        "features.0.0.weight",
        "stem.conv.weight",
        "efficientnet.embeddings.convolution.weight",
        "_conv_stem.weight",
    ),
    "block1a_bn/moving_variance": (
        "blocks.0.0.bn1.running_var",
        "features.1.0.block.0.1.running_var",
        "layers.0.block0.depsep.bn.running_var",
        "efficientnet.encoder.blocks.0.depthwise_conv.depthwise_norm.running_var",
        "_blocks.0._bn1.running_var",
    ),
    "block1a_project_conv/kernel": (
        "blocks.0.0.conv_pw.weight",
        "features.1.0.block.2.0.weight",
        "layers.0.block0.proj.conv.weight",
        "efficientnet.encoder.blocks.0.projection.project_conv.weight",
        "_blocks.0._project_conv.weight",
    ),
    "block2b_se_reduce/bias": (
        "blocks.1.1.se.conv_reduce.bias",
        "features.2.1.block.2.fc1.bias",
        "layers.1.block1.se.squeeze.bias",
        "efficientnet.encoder.blocks.2.squeeze_excite.reduce.bias",
        "_blocks.2._se_reduce.bias",
    ),
    "block2b_project_bn/gamma": (
        "blocks.1.1.bn3.weight",
        "features.2.1.block.3.1.weight",
        "layers.1.block1.proj.bn.weight",
        "efficientnet.encoder.blocks.2.projection.project_bn.weight",
        "_blocks.2._bn2.weight",
    ),
    "top_bn/beta": (
        "bn2.bias",
        "features.8.1.bias",
        "features.bn.bias",
        "efficientnet.encoder.top_bn.bias",
        "_bn1.bias",
    ),
    "predictions/bias": (
        *("classifier.bias", "classifier.1.bias"),
        *("classifier.fc.bias", "classifier.bias", "_fc.bias"),
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


def test_efficientnet_names_equal_those_of_other_programs():
    paths = list(weight_shapes(get_arch("efficientnet-b0")))
    programs = ("timm", "torchvision", "nvidia", "transformers", "efficientnet_pytorch")
    for number, program in enumerate(programs):
        names = source_names(paths, scheme_for(program, "efficientnet"))
        assert len(set(names.values())) == len(paths)
        for ours, theirs in EFFICIENTNET.items():
            assert names[ours] == theirs[number]


def test_resnet_names_equal_those_of_other_programs():
    for number, program in enumerate(("torchvision", "nvidia", "transformers")):
        names = source_names(RESNET, scheme_for(program, "resnet"))
        for ours, theirs in RESNET.items():
            assert names.get(ours) == theirs[number]


def test_efficientnet_v2_names_equal_those_of_other_programs():
    """Some blocks have no depthwise convolution; timm and torchvision name these differently."""
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


def test_older_nvidia_names_are_recognised():
    names = {"conv1.weight", "layer1.0.conv1.weight", "layer1.0.squeeze.squeeze.weight"}
    scheme = recognise(names)
    assert scheme.program == "nvidia"
    ours = ["layer1_0_conv1/kernel", "layer1_0_se_reduce/kernel"]
    assert set(source_names(ours, scheme).values()) == names - {"conv1.weight"}


def test_layouts_convert_to_keras_and_back():
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
        assert to_keras(array, path, (9, *shape[1:])).shape[0] != 9
    # One element: output 2, input 1, row 3, column 4.
    array = rng.normal(size=(8, 3, 5, 7))
    assert to_keras(array, "x_conv/kernel", (5, 7, 3, 8))[3, 4, 1, 2] == array[2, 1, 3, 4]


# ---- options that a file implies --------------------------------------------------------------


def suggestion(names, arch, path="weights.pth", **options):
    arrays = {name: np.zeros((4, 3, 3, 3), np.float32) for name in names}
    facts = options.pop("facts", {})
    file = WeightFile(Path(path), "torch", "raw", arrays, facts)
    return suggest(file, get_arch(arch), **options)[1].arguments


TIMM = ("conv_stem.weight", "blocks.0.0.conv_dw.weight")
TORCHVISION = ("features.0.0.weight", "features.1.0.block.0.0.weight")
BASIC = ("conv1.weight", "layer1.0.conv1.weight")
SYMMETRIC = {"padding": "symmetric", "bn_epsilon": 1e-5, "bn_momentum": 0.9}
SAME = {"padding": "same", "bn_epsilon": 1e-3, "bn_momentum": 0.9}


def test_options_are_suggested_from_names_in_pytorch_files(tmp_path):
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
    assert suggestion(TORCHVISION, "efficientnetv2-s") == SYMMETRIC | {"bn_epsilon": 1e-3}
    assert suggestion(("stem.conv.weight", "layers.0.block0.se.squeeze.bias"), b0) == slow

    luke = ("_conv_stem.weight", "_blocks.0._depthwise_conv.weight")
    assert suggestion(luke, b0) == slow | {"padding": "same"}
    adv = "adv-efficientnet-b0-b64d5a18.pth"
    assert suggestion(luke, b0, adv) == slow | {"padding": "same"} | half

    # Names on timm's hub, in its cache and of its older files, without a config.json.
    s34, v2 = "resnet34", "efficientnetv2-s"
    ra4 = "efficientnet_b0.ra4_e3600_r224_in1k"
    assert suggestion(TIMM, b0, f"{ra4}/model.safetensors") == SYMMETRIC | half
    cache = "models--timm--tf_efficientnet_b0.ap_in1k/snapshots/0a1b"
    assert suggestion(TIMM, b0, f"{cache}/model.safetensors") == SAME | half
    assert suggestion(BASIC, s34, "resnet34.ra4_e3600_r224_in1k/x.bin") == SYMMETRIC | half
    assert suggestion(BASIC, s34, "resnet34_a1_0-46f8f793.pth") == SYMMETRIC
    assert suggestion(TIMM, v2, "tf_efficientnetv2_s-eb54923e.pth") == SAME | half
    assert suggestion(TIMM, b0, "tf_runs/x.pth") == SYMMETRIC
    assert suggestion(TIMM, b0, "tf_efficientnet_b0/efficientnet_b0_ra-3dd342df.pth") == SYMMETRIC
    assert suggestion(TIMM, b0, "maps_ap_/tf_efficientnet_b0.pth") == SAME

    # timm's config.json beside the weights, as on its hub.
    config = '{"architecture": "tf_efficientnet_b0", "pretrained_cfg": {"mean": [0.5, 0.5, 0.5]}}'
    (tmp_path / "config.json").write_text(config)
    expected = SAME | {"mean": [127.5] * 3}
    assert suggestion(TIMM, b0, tmp_path / "model.safetensors") == expected


def test_the_squeeze_ratio_is_suggested_from_the_shapes(tmp_path):
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
        (("cls_token", "blocks.0.norm1.weight"), TINY, "a Vision Transformer, which is not built"),
        (("stages.0.blocks.0.gamma", "stem.0.weight"), TINY, r"a ConvNeXt.*Nearest in size here: "),
        (("block1_conv1/kernel", "block1_conv2/kernel"), TINY, "a VGG or AlexNet"),
        (TIMM, "resnet50", "family efficientnet"),
        (("conv1_conv/kernel",), "resnet50", "another network than v1.5"),
        (("layer0.conv1.weight",), "resnet50", "another network"),
        (("encoder.layer.0.attention.weight",), "resnet50", "no known EfficientNet or ResNet"),
    ],
)
def test_another_network_is_refused_with_the_reason(names, arch, reason):
    with pytest.raises(WeightFileError, match=reason):
        suggestion(names, arch)


LITE = {  # by file: mean and standard deviation, in 0-255; padding; batch norm's epsilon
    "efficientnet-lite0-57934424.pth": (None, "same", 1e-3),  # the architecture's own: 127 and 128
    "tf_efficientnet_lite0-0aa007d2.pth": ((127.5, 127.5), "same", 1e-3),
    "efficientnet_lite0_ra-37913777.pth": ((255 * 0.485, 255 * 0.229), "symmetric", 1e-5),
}


@pytest.mark.parametrize("name", LITE)
def test_lite_weights_use_their_programs_normalisation(name):
    normalised, padding, epsilon = LITE[name]
    marks = TIMM if "_lite" in name else ("_conv_stem.weight", "_blocks.0._bn1.weight")
    arrays = {mark: np.zeros(8) for mark in marks}
    file = WeightFile(Path(name), "torch", "raw", arrays)
    arguments = suggest(file, get_arch("efficientnet-lite0"))[1].arguments
    assert (arguments["padding"], arguments["bn_epsilon"]) == (padding, epsilon)
    found = arguments.get("mean"), arguments.get("std")
    assert found == (None, None) if not normalised else (found[0][0], found[1][0]) == normalised


def test_v2_weights_of_keras_applications_normalise_to_minus_1_to_1():
    """The published files hold weights only; no layer in them says x / 128 - 1."""
    arrays = {"stem_conv/kernel": np.zeros((3, 3, 3, 24)), "block1a_project_bn/gamma": np.zeros(24)}
    file = WeightFile(Path("efficientnetv2-s.h5"), "keras", "raw", arrays, {"keras": 2})
    found = suggest(file, get_arch("efficientnetv2-s"))[1]
    assert found.arguments == {"padding": "same", "bn_epsilon": 1e-3, "bn_momentum": 0.9,
                               "mean": [128.0] * 3, "std": [128.0] * 3}  # fmt: skip
    assert "keras.applications" in found.notes[0]


def test_small_v2_weights_of_keras_applications_normalise_with_imagenets_constants():
    """The published files hold weights only, without the layer's constants."""
    arrays = {"stem_conv/kernel": np.zeros((3, 3, 3, 32)), "block1a_project_bn/gamma": np.zeros(16)}
    file = WeightFile(Path("efficientnetv2-b0.h5"), "keras", "raw", arrays, {"keras": 2})
    found = suggest(file, get_arch("efficientnetv2-b0"))[1]
    assert found.arguments == {"padding": "same", "bn_epsilon": 1e-3, "bn_momentum": 0.9}


def test_constants_of_a_keras_normalization_layer_are_read():
    """A Rescaling followed by a Normalization with constants, as in EfficientNetV2B0."""
    import keras

    mean, variance = [0.485, 0.456, 0.406], [0.229**2, 0.224**2, 0.225**2]
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Normalization(mean=mean, variance=variance)(x)
    model = keras.Model(inputs, keras.layers.Conv2D(8, 3, name="stem_conv")(x))
    arrays = {"stem_conv/kernel": np.zeros((3, 3, 3, 8)), "block1a_bn/gamma": np.zeros(8)}
    facts = {"config": json.loads(model.to_json())}
    file = WeightFile(Path("x.keras"), "keras", "raw", arrays, facts)
    arguments = suggest(file, get_arch("efficientnetv2-b0"))[1].arguments
    np.testing.assert_allclose(arguments["mean"], 255 * np.array(mean), rtol=1e-6)
    np.testing.assert_allclose(arguments["std"], 255 * np.sqrt(variance), rtol=1e-6)


def test_the_variance_in_keras_imagenet_files_is_taken_as_a_standard_deviation():
    """Their `variance` holds standard deviations; the published model divides by its root twice."""
    from convoy.model.catalog import IMAGENET_MEAN, IMAGENET_STD

    arrays = {"stem_conv/kernel": np.zeros((3, 3, 3, 32)), "block1a_bn/gamma": np.zeros(32)}
    arrays["normalization/mean"] = np.array([0.485, 0.456, 0.406], np.float32)
    arrays["normalization/variance"] = np.array([0.229, 0.224, 0.225], np.float32)
    file = WeightFile(Path("efficientnetb0.h5"), "keras", "raw", arrays)
    arguments = suggest(file, get_arch("efficientnet-b0"))[1].arguments
    np.testing.assert_allclose(arguments["mean"], IMAGENET_MEAN, rtol=1e-6)
    np.testing.assert_allclose(arguments["std"], IMAGENET_STD, rtol=1e-6)


def test_names_of_a_deep_stem_equal_timms():
    paths = ["conv1_0/kernel", "conv1_1/gamma", "conv1_6/kernel", "bn1/beta", "maxpool_0/kernel"]
    paths += ["layer1_0_conv1/kernel", "layer1_0_downsample_conv/kernel"]
    theirs = ["conv1.0.weight", "conv1.1.weight", "conv1.6.weight", "bn1.bias", "maxpool.0.weight"]
    theirs += ["layer1.0.conv1.weight", "layer1.0.downsample.1.weight"]
    names = source_names(paths, scheme_for("timm", "resnet"))
    assert [names[path] for path in paths] == theirs
    assert recognise(theirs).family == recognise(paths).family == "resnet"
    assert "conv1_0/kernel" not in source_names(paths, scheme_for("nvidia", "resnet"))
