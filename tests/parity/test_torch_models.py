"""The same weights in PyTorch's models and in ours, through a saved file, give the same logits."""

import keras
import numpy as np
import pytest

from model import build_model, get_arch
from model.catalog import macs
from model.weights import export_weights, inspect, load_pretrained

pytest.importorskip("torch", reason="needs the extra `parity`: see tests/parity/conftest.py")

CLASSES = 20
TIMM = {
    **{f"efficientnet_b{i}": f"efficientnet-b{i}" for i in range(9)},
    **{f"tf_efficientnet_b{i}": f"efficientnet-b{i}" for i in (0, 3, 7)},
    "efficientnetv2_s": "efficientnetv2-s",
    "tf_efficientnetv2_s": "efficientnetv2-s",
    **{name: name for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")},
    "resnext50_32x4d": "resnext50-32x4d",
    "resnext101_32x4d": "resnext101-32x4d",
    "resnext101_32x8d": "resnext101-32x8d",
    "seresnext101_32x4d": "se-resnext101-32x4d",
}
LARGE = {"efficientnet_b6", "efficientnet_b7", "efficientnet_b8", "tf_efficientnet_b7"}
TORCHVISION = ("efficientnet_b0", "efficientnet_b5", "resnet50", "resnext50_32x4d")


@pytest.fixture
def compare(torch, randomise, to_torch, pictures, tmp_path, record_property):
    """Carries a PyTorch model's weights over by a file and compares the two, twice."""

    def check(theirs, arch, filename, size, forward=None):
        forward = forward or (lambda x: theirs(x))
        images = pictures(size)
        path = tmp_path / filename
        # With `mean` and `std` from the file's name, as a user has it.
        torch.save(theirs.state_dict(), path)
        hint = inspect(path, arch)
        mean, std = (hint.arguments.get(k, d) for k, d in _imagenet())
        x = to_torch(images, mean, std)
        randomise(theirs, x)
        torch.save(theirs.state_dict(), path)

        keras.backend.clear_session()
        ours = build_model(
            arch,
            num_classes=CLASSES,
            image_size=size,
            dropout=0.0,
            stochastic_depth=0.0,
            **hint.arguments,
        )
        report = load_pretrained(ours, arch, path, strict=True)
        assert not report.warnings
        assert not report.head_replaced

        # In float64, so that only our rounding counts: deep models amplify it to about 5e-5.
        with torch.no_grad():
            theirs.double()
            expected = forward(x.double()).numpy()
            theirs.float()
        logits = np.asarray(ours(images, training=False))
        assert expected.std(axis=0).mean() > 0.01 * np.abs(expected).max()  # images do matter
        difference = np.abs(logits - expected).max() / np.abs(expected).max()
        record_property("relative_difference", float(difference))
        print(f"{filename}: relative difference {difference:.1e}")
        assert difference < 1e-4

        theirs.train()
        before = {v.path: np.asarray(v) for v in ours.weights}
        with torch.no_grad():
            forward(x[::2])  # other statistics than the running ones, which are those of all
        ours(images[::2], training=True)
        torch.save(theirs.state_dict(), path)
        moved = {v.path: np.asarray(v) for v in ours.weights}
        load_pretrained(ours, arch, path, strict=True)
        worst = 0.0
        for v in ours.weights:
            if "moving" in v.path:
                step = np.asarray(v) - before[v.path]
                assert np.abs(step).max() > 0
                error = np.abs(moved[v.path] - np.asarray(v)).max()
                worst = max(worst, error / np.abs(np.asarray(v)).max())
        record_property("relative_difference_of_statistics", float(worst))
        print(f"{filename}: statistics after a training step {worst:.1e}")
        assert worst < 1e-4

    return check


def _imagenet():
    from model.catalog import IMAGENET_MEAN, IMAGENET_STD

    return ("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in TIMM]
)
def test_timm(name, timm, compare):
    theirs = timm.create_model(name, num_classes=CLASSES, drop_rate=0.0, drop_path_rate=0.0)
    compare(theirs, TIMM[name], f"{name}.pth", 96)


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name, torch, torchvision, compare):
    options = {"stochastic_depth_prob": 0.0, "dropout": 0.0} if "efficient" in name else {}
    theirs = getattr(torchvision.models, name)(num_classes=CLASSES, **options)
    arch = name.replace("_", "-")
    compare(theirs, arch, f"{name}.pth", 96)


def test_transformers_resnet50(transformers, compare):
    config = transformers.ResNetConfig(num_labels=CLASSES)
    theirs = transformers.ResNetForImageClassification(config)
    compare(theirs, "resnet50", "hf.pth", 96, lambda x: theirs(x).logits)


def test_transformers_efficientnet_b0(transformers, compare):
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
    # The library means 0.99 in Keras' sense, hands it to PyTorch, and forgets some of the norms.
    for module in theirs.modules():
        if hasattr(module, "running_var"):
            module.momentum = 0.01
    compare(theirs, "efficientnet-b0", "hf.pth", 96, lambda x: theirs(x).logits)


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_b0"])
def test_exported_weights_run_in_timm(name, torch, timm, to_torch, pictures, tmp_path):
    from safetensors.torch import load_file

    arch, size = TIMM[name], 64
    ours = build_model(arch, num_classes=CLASSES, image_size=size, seed=0)
    images = pictures(size)
    ours(images, training=True)  # statistics that are not zeros and ones
    path = tmp_path / "weights.safetensors"
    export_weights(ours, arch, path, "timm")
    theirs = timm.create_model(name, num_classes=CLASSES)
    theirs.load_state_dict(load_file(path), strict=True)
    theirs.eval()
    mean, std = (d for _, d in _imagenet())
    with torch.no_grad():
        logits = theirs(to_torch(images, mean, std)).numpy()
    expected = np.asarray(ours(images, training=False))
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()


COUNTED = (
    *(f"EfficientNet_B{i}" for i in range(8)),
    *("EfficientNet_V2_S", "ResNet18", "ResNet34", "ResNet50", "ResNet101", "ResNet152"),
    *("ResNeXt50_32X4D", "ResNeXt101_32X8D"),
)


@pytest.mark.parametrize("name", COUNTED)
def test_macs_and_parameters_are_those_that_torchvision_records(name, torchvision):
    # No weights are fetched: these numbers lie in torchvision's source.
    weights = getattr(torchvision.models, f"{name}_Weights").IMAGENET1K_V1
    ours = name.lower().replace("efficientnet_v2_", "efficientnetv2-").replace("_", "-")
    arch, size = get_arch(ours), weights.transforms.keywords["crop_size"]
    assert macs(arch, size) / 1e9 == pytest.approx(weights.meta["_ops"], rel=0.01)
    assert arch.trainable_1000 == weights.meta["num_params"]
