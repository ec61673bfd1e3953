"""Files whose tensors do not fit the architecture. tests/parity checks all of timm's models."""

import dataclasses
from functools import partial

import numpy as np
import pytest

from convoy.model import build_model, get_arch
from convoy.model.efficientnet_stages import Stage
from convoy.model.weights import WeightFileError, inspect, load_pretrained
from tests.weight_file import write_timm

V2_RW_S = dataclasses.replace(  # timm's efficientnetv2_rw_s, which has other widths from stage 4 on
    get_arch("efficientnetv2-s"),
    top_filters=1792,
    stages=(
        *get_arch("efficientnetv2-s").stages[:4],
        Stage(3, 9, 160, 6, 1, depthwise="dwconv2"),
        Stage(3, 15, 272, 6, 2, depthwise="dwconv2"),
    ),
)


@pytest.fixture
def save(tmp_path):
    return partial(write_timm, tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    "name", ["efficientnet-b0", "efficientnet-lite4", "efficientnetv2-s", "se-resnext101-32x4d"]
)
def test_a_file_that_fits_is_accepted(name, save):
    assert inspect(save(get_arch(name)), name).num_classes == 10


def test_counters_of_other_programs_are_ignored(save):
    counters = ("n_averaged", "total_ops", "bn1.total_params", "bn1.num_batches_tracked")
    inspect(save(get_arch("resnet18"), extra=counters), "resnet18")


REFUSED = {
    "lite": (  # B0's names and shapes without squeeze-and-excitation
        *("efficientnet-lite0", "efficientnet-b0", {}),
        ("missing in the file: 64 of its 3", "(64 in all)",
         "It holds efficientnet-lite0: give --arch efficientnet-lite0"),
    ),
    "unsqueezed": (
        *("efficientnet-b3", "efficientnet-b3", {"without": (".se.",)}),
        ("missing in the file:", "no squeeze-and-excitation, but"),
    ),
    "v2_rw_s": (
        *(V2_RW_S, "efficientnetv2-s", {}),
        ("of another shape: 277 (", "variant of efficientnetv2-s that is not known"),
    ),
    "another of ours": (
        *("efficientnet-b1", "efficientnet-b0", {}),
        ("left over in the file:", "It holds efficientnet-b1: give --arch efficientnet-b1"),
    ),
    "wider": (
        *("efficientnet-b4", "efficientnet-b0", {}),
        ("of another shape: 310 (stem_conv/kernel: (3,3,3,48) in the file, (3,3,3,32) in the model;"
         " stem_bn/gamma: (48) in the file, (32) in the model; ", "; … (310 in all))"),
    ),
    "squeezed": (
        *("se-resnext101-32x4d", "resnext101-32x4d", {"se_ratio": 1 / 16}),
        ("It holds se-resnext101-32x4d",),
    ),
    "something on top": (
        *("resnet18", "resnet18", {"extra": ("neck.weight", "neck.bias")}),
        ("left over in the file: 2 (neck.bias, neck.weight)",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_that_does_not_fit_is_refused_with_the_differences(kind, save):
    holds, taken_for, options, said = REFUSED[kind]
    path = save(get_arch(holds) if isinstance(holds, str) else holds, **options)
    with pytest.raises(WeightFileError) as refused:
        inspect(path, taken_for)
    text = str(refused.value)
    for part in (*said, "does not fit", "--pretrained_partial"):
        assert part in text
    assert len(text) < 800


def test_the_error_names_the_architecture_in_a_config_json_beside_the_file(save, tmp_path):
    path = save(get_arch("efficientnet-b1"), without=(".se.",))
    (tmp_path / "config.json").write_text('{"architecture": "efficientnet_em"}')
    with pytest.raises(WeightFileError, match="It calls itself efficientnet_em"):
        inspect(path, "efficientnet-b1")


def test_networks_with_equal_tensors_are_distinguished_by_the_file_name(save):
    path = save(get_arch("resnet50"))
    path = path.rename(path.with_name("resnetblur50-84f4748f.safetensors"))
    with pytest.raises(WeightFileError, match=r"resnetblur50.* blur or average"):
        inspect(path, "resnet50")
    assert inspect(path, "resnet50", partial=True).num_classes == 10


def test_partial_loading_takes_the_tensors_that_fit(save):
    path = save(get_arch("efficientnet-test"), without=(".se.",), extra=("neck.weight",))
    model = build_model("efficientnet-test", num_classes=10, image_size=32, seed=1)
    before = [np.asarray(v) for v in model.weights]
    with pytest.raises(WeightFileError, match="missing in the file"):
        load_pretrained(model, "efficientnet-test", path)
    assert all(np.array_equal(a, v) for a, v in zip(before, model.weights, strict=True))
    inspect(path, "efficientnet-test", partial=True)
    report = load_pretrained(model, "efficientnet-test", path, partial=True)
    assert report.unmatched_file == ["neck.weight"]
    assert all("_se_" in name for name in report.unmatched_model)
    for old, v in zip(before, model.weights, strict=True):
        assert np.array_equal(v, old) if "_se_" in v.path else not np.any(v)
    assert max(map(len, report.lines())) < 300


@pytest.mark.parametrize("layers", [("fc.0", "fc.3"), ("fc",), ()])
def test_a_classifier_of_any_form_is_replaced(layers, save):
    """The file has a classifier for other classes, one of several layers, or none."""
    path = save(
        get_arch("resnet18"),
        without=("fc.",) if layers != ("fc",) else (),
        extra=[f"{layer}.{part}" for layer in layers[1:] for part in ("weight", "bias")],
        classes=7,
    )
    model = build_model("resnet18", num_classes=3, image_size=32)
    report = load_pretrained(model, "resnet18", path)
    assert report.head_replaced
    assert report.unmatched_model == ["fc/kernel", "fc/bias"]
    with pytest.raises(WeightFileError, match="strict loading asks"):
        load_pretrained(model, "resnet18", path, strict=True)


def test_the_error_names_the_architecture_of_the_other_family(save):
    with pytest.raises(WeightFileError, match="It holds resnet18: give --arch resnet18"):
        inspect(save(get_arch("resnet18")), "efficientnet-b0")


def test_an_unsupported_network_is_named_with_ours_of_the_nearest_size(tmp_path):
    """A Vision Transformer of 5.7 million values, with timm's config.json beside it."""
    from safetensors.numpy import save_file

    arrays = {"cls_token": np.zeros((1, 1, 192)), "blocks.0.mlp.fc1.weight": np.zeros(5_700_000)}
    save_file({k: v.astype(np.int8) for k, v in arrays.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architecture": "vit_tiny_patch16_224"}')
    with pytest.raises(WeightFileError) as refused:
        inspect(tmp_path / "model.safetensors", "resnet50")
    assert str(refused.value).endswith(
        "does not fit resnet50: it holds a Vision Transformer (vit_tiny_patch16_224), which is not"
        " built here. Nearest in size here: efficientnet-lite1 (5.5 million parameters)"
    )
