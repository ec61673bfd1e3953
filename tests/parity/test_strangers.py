"""Unsupported networks of other programs: the error says what each is."""

from pathlib import Path

import numpy as np
import pytest

from convoy.model.arithmetic import weight_shapes
from convoy.model.catalog import get_arch
from convoy.model.weights.files import WeightFile, WeightFileError
from convoy.model.weights.fit import check_fit, fit, se_ratio
from convoy.model.weights.suggest import suggest

pytest.importorskip("torch", reason="needs the extra `parity`: see tests/parity/conftest.py")

TIMM = {
    "convnext_tiny": "a ConvNeXt",
    "vit_base_patch16_224": "a Vision Transformer",
    "deit3_small_patch16_224": "a Vision Transformer",
    "swin_tiny_patch4_window7_224": "a Swin Transformer",
    "mixer_b16_224": "an MLP-Mixer",
    "densenet121": "a DenseNet",
    "vgg16": "a VGG",
    "regnety_016": "a RegNet",
    "inception_v3": "an Inception",
    "inception_resnet_v2": "an Inception",
    "resnetv2_50": "a pre-activation ResNet",
    "xception41": "an Xception",
    "mobilenetv3_large_100": "a MobileNetV3",
    "mobilenetv4_conv_small": "another network",
    "hrnet_w18": "an HRNet",
    "efficientnet_es": "another network",
    "mobilenetv2_100": "another network",
    "mixnet_s": "another network",
    "efficientnetv2_rw_s": "variant of efficientnetv2-s",
    "ecaresnet50d": "variant of resnet50d",
}
TORCHVISION = {
    "convnext_tiny": "a ConvNeXt",
    "vit_b_16": "a Vision Transformer",
    "swin_t": "a Swin Transformer",
    "densenet121": "a DenseNet",
    "vgg16": "a VGG",
    "alexnet": "a VGG or AlexNet",
    "regnet_y_1_6gf": "a RegNet",
    "mobilenet_v3_large": "a MobileNetV3",
    "mobilenet_v2": "a MobileNetV2",
    "shufflenet_v2_x1_0": "a ShuffleNet",
}


def said_of(model):
    """Returns the error for a model's tensors when they are taken for ResNet50's."""
    arrays = {
        name: np.broadcast_to(np.float32(0), tuple(value.shape))
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    file, arch = WeightFile(Path("x.pth"), "torch", "raw", arrays), get_arch("resnet50")
    with pytest.raises(WeightFileError) as refused:
        hold_against(file, arch)
    return str(refused.value)


def hold_against(file, arch):
    scheme, suggestion = suggest(file, arch)
    shapes = weight_shapes(arch, 1000, se_ratio(file.arrays))
    found = fit(file, scheme, arch.family, shapes)
    check_fit(found, file, scheme, arch, suggestion.called, None, False)


@pytest.mark.parametrize("name", TIMM)
def test_a_timm_network_is_refused_with_its_family(name, torch, timm):
    with torch.device("meta"):
        said = said_of(timm.create_model(name))
    assert TIMM[name] in said, said
    assert "Nearest in size here: " in said or "variant" in said


@pytest.mark.parametrize("name", TORCHVISION)
def test_a_torchvision_network_is_refused_with_its_family(name, torch, torchvision):
    with torch.device(
        "cpu" if name.startswith("regnet") else "meta"
    ):  # RegNet's initialisation needs values
        said = said_of(getattr(torchvision.models, name)())
    assert TORCHVISION[name] in said, said
    assert "Nearest in size here: " in said
