"""PyTorch's models and ours give the same results with the same weights, moved by a file."""

import numpy as np
import pytest

from convoy.model import build_model, get_arch
from convoy.model.arithmetic import macs
from convoy.model.weights import export_weights

pytest.importorskip("torch", reason="needs the extra `parity`: see tests/parity/conftest.py")

CLASSES = 20
B = range(8)
V2 = ("b0", "b1", "b2", "b3", "s", "m", "l", "xl")
TIMM = {
    **{f"efficientnet_b{i}": f"efficientnet-b{i}" for i in (*B, 8)},
    **{f"tf_efficientnet_b{i}": f"efficientnet-b{i}" for i in (*B, 8)},
    "tf_efficientnet_l2": "efficientnet-l2",
    "efficientnet_lite0": "efficientnet-lite0",
    **{f"tf_efficientnet_lite{i}": f"efficientnet-lite{i}" for i in range(5)},
    "efficientnetv2_s": "efficientnetv2-s",
    **{f"tf_efficientnetv2_{x}": f"efficientnetv2-{x}" for x in V2},
    **{f"efficientnetv2_{x}": f"efficientnetv2-{x}" for x in ("m", "l", "xl")},
    **{name: name for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")},
    **{f"resnext{name}": f"resnext{name.replace('_', '-')}" for name in ("50_32x4d", "101_32x4d")},
    "resnext101_32x8d": "resnext101-32x8d",
    "seresnext101_32x4d": "se-resnext101-32x4d",
    **{name: name for name in ("resnet18d", "resnet26d", "resnet34d", "resnet50d", "resnet101d")},
    **{name: name for name in ("resnet152d", "resnet200d", "resnetrs50", "resnetrs101")},
    **{name: name for name in ("resnetrs152", "resnetrs200", "resnetrs270", "resnetrs350")},
    "resnetrs420": "resnetrs420",
}
TORCHVISION = {
    **{f"efficientnet_b{i}": f"efficientnet-b{i}" for i in B},
    **{f"efficientnet_v2_{x}": f"efficientnetv2-{x}" for x in ("s", "m", "l")},
    **{name: name for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")},
    "resnext50_32x4d": "resnext50-32x4d",
    "resnext101_32x8d": "resnext101-32x8d",
}
SIZES = {"efficientnet-l2": 64}
# Each takes minutes or gigabytes: `make test-parity-slow`.
GIANTS = ("b7", "b8", "l2", "152d", "200d", "rs152", "rs200", "rs270", "rs350", "rs420")
GIANTS += ("v2_l", "v2_xl")


def names(table):
    slow = pytest.mark.slow
    return [pytest.param(n, marks=slow) if n.endswith(GIANTS) else n for n in table]


@pytest.mark.parametrize("name", names(TIMM))
def test_timms_model_gives_the_same_results(name, timm, compare):
    theirs = timm.create_model(name, num_classes=CLASSES, drop_rate=0.0, drop_path_rate=0.0)
    arch = TIMM[name]
    compare(theirs, arch, f"timm {name}", f"{name}.pth", SIZES.get(arch, 96))


def test_timms_se_resnext_with_16_squeeze_units_gives_the_same_results(timm, compare):
    from functools import partial

    from timm.layers import SEModule

    squeeze = {"attn_layer": partial(SEModule, rd_channels=16)}
    theirs = timm.create_model("resnext101_32x4d", num_classes=CLASSES, block_args=squeeze)
    arch = "se-resnext101-32x4d"
    compare(theirs, arch, "timm resnext101_32x4d, SE of 16 units", "se.pth")


@pytest.mark.parametrize("name", names(TORCHVISION))
def test_torchvisions_model_gives_the_same_results(name, torchvision, compare):
    options = {"stochastic_depth_prob": 0.0, "dropout": 0.0} if "efficient" in name else {}
    theirs = getattr(torchvision.models, name)(num_classes=CLASSES, **options)
    compare(theirs, TORCHVISION[name], f"torchvision {name}", f"{name}.pth")


def test_transformers_resnet50_gives_the_same_results(transformers, compare):
    config = transformers.ResNetConfig(num_labels=CLASSES)
    theirs = transformers.ResNetForImageClassification(config)
    forward = lambda x: theirs(x).logits  # noqa: E731
    compare(theirs, "resnet50", "transformers ResNet", "hf.pth", forward=forward)


def test_transformers_efficientnet_b0_gives_the_same_results(transformers, compare):
    config = transformers.EfficientNetConfig(
        num_labels=CLASSES,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        image_size=96,
        hidden_dim=1280,
        dropout_rate=0.0,
        drop_connect_rate=0.0,
    )
    theirs = transformers.EfficientNetForImageClassification(config)
    # The library means 0.99 as Keras defines it, passes it to PyTorch, and omits some norms.
    for module in theirs.modules():
        if hasattr(module, "running_var"):
            module.momentum = 0.01
    forward = lambda x: theirs(x).logits  # noqa: E731
    compare(theirs, "efficientnet-b0", "transformers EfficientNet", "hf.pth", forward=forward)


def test_efficientnet_pytorchs_b0_gives_the_same_results(efficientnet_pytorch, compare):
    options = {"image_size": 96, "num_classes": CLASSES, "dropout_rate": 0.0}
    theirs = efficientnet_pytorch.EfficientNet.from_name(
        "efficientnet-b0", **options, drop_connect_rate=0.0
    )
    compare(theirs, "efficientnet-b0", "efficientnet_pytorch b0", "efficientnet-b0-355c32eb.pth")


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_b0"])
def test_exported_weights_give_the_same_logits_in_timm(
    name, torch, timm, to_torch, pictures, tmp_path
):
    from safetensors.torch import load_file

    arch, size = TIMM[name], 64
    ours = build_model(arch, num_classes=CLASSES, image_size=size, seed=0)
    images = pictures(size)
    ours(images, training=True)  # updates the statistics, which start at 0 and 1
    path = tmp_path / "weights.safetensors"
    export_weights(ours, arch, path, "timm")
    theirs = timm.create_model(name, num_classes=CLASSES)
    theirs.load_state_dict(load_file(path), strict=True)
    theirs.eval()
    with torch.no_grad():
        logits = theirs(to_torch(images)).numpy()
    expected = np.asarray(ours(images, training=False))
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()


COUNTED = (
    *(f"EfficientNet_B{i}" for i in range(8)),
    *("EfficientNet_V2_S", "ResNet18", "ResNet34", "ResNet50", "ResNet101", "ResNet152"),
    *("ResNeXt50_32X4D", "ResNeXt101_32X8D"),
)


@pytest.mark.parametrize("name", COUNTED)
def test_multiply_adds_and_parameters_equal_torchvisions_metadata(name, torchvision):
    # No weights are downloaded: these numbers are in torchvision's source.
    weights = getattr(torchvision.models, f"{name}_Weights").IMAGENET1K_V1
    ours = name.lower().replace("efficientnet_v2_", "efficientnetv2-").replace("_", "-")
    arch, size = get_arch(ours), weights.transforms.keywords["crop_size"]
    assert macs(arch, size) / 1e9 == pytest.approx(weights.meta["_ops"], rel=0.01)
    assert arch.trainable_1000 == weights.meta["num_params"]
