"""`--evaluation_like`: which settings it implies, and which override it."""

import json

import pytest

from convoy.runtime.command_line.cli import configure
from convoy.runtime.command_line.sources import Given, sources_of
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.evaluation_like import PRESETS, settings_like
from convoy.runtime.settings.images import eval_crop, likeness
from convoy.runtime.settings.model_checks import settle_crop
from convoy.utils.errors import ConfigError


def settled(folder, **given):
    """Returns the settings for predict with weights from a file, before the file is read."""
    file = folder / "x.pth"
    file.write_bytes(bytes(100))
    values = {"mode": "predict", "pretrained_from_file": str(file), **given}
    return settle_crop(sources_of(Given(values)).config())


def test_torchvisions_presets_are_found_by_the_files_name():
    first = settings_like("torchvision", "resnet50", {}, "resnet50-0676ba61.pth")
    second = settings_like("torchvision", "resnet50", {}, "resnet50-11ad3fa6.pth")
    other = settings_like("torchvision", "resnet50", {}, "mine.pth")
    assert (first["crop_padding"], second["crop_padding"], other["crop_padding"]) == (32, 8, 8)
    b1 = settings_like("torchvision", "efficientnet-b1", {}, "efficientnet_b1_rwightman-bac287d4")
    assert (b1["image_size"], b1["crop_padding"], b1["interpolation"]) == (240, 16, "bicubic")
    assert all(preset.resize >= preset.crop for p in PRESETS.values() for preset in p.values())
    with pytest.raises(ConfigError, match="torchvision has no weights of efficientnet-lite0"):
        settings_like("torchvision", "efficientnet-lite0", {}, "x.pth")


def test_timms_settings_are_those_of_its_config_or_its_defaults():
    alone = settings_like("timm", "resnet50", {}, "x.pth")
    assert (alone["crop_pct"], alone["interpolation"]) == (0.875, "bicubic")
    said = {"crop_pct": 0.95, "interpolation": "bilinear", "eval_crop": "squash"}
    found = settings_like("timm", "resnet50", said, "x.pth")
    assert found == {"exif_orientation": "ignore", "eval_crop": "squash"}


def test_a_run_keeps_its_size_and_crop():
    for program in ("torchvision", "timm"):
        found = settings_like(program, "resnet50", {"eval_crop": "crop"}, "")
        assert found == {"exif_orientation": "ignore", "eval_crop": "resize"}


@pytest.mark.parametrize(
    ("program", "arch", "method", "arithmetic", "interpolation", "rounded"),
    [
        ("torchvision", "resnet50", "resize", "pillow", "bilinear", True),
        ("timm", "efficientnet-b0", "resize", "pillow", "bicubic", True),
        ("keras", "efficientnet-b0", "squash", "pillow", "nearest", True),
        ("documents", "efficientnet-b0", "crop", "tensorflow", "bilinear", False),
        ("documents", "resnet50", "resize", "pillow", "bilinear", True),
    ],
)
def test_a_weight_file_is_evaluated_as_the_program_does(
    tmp_path, program, arch, method, arithmetic, interpolation, rounded
):
    config = settled(tmp_path, arch=arch, evaluation_like=program)
    crop = eval_crop(config)
    assert (crop.method, crop.arithmetic, crop.interpolation) == (method, arithmetic, interpolation)
    assert (crop.rounded, crop.exif_orientation) == (rounded, "ignore")
    assert crop.in_bytes().rounded
    assert f"like {program}" in likeness(config, 224)
    own = settled(tmp_path, arch=arch, evaluation_like=program, crop_padding=5)
    assert own.crop_padding == 5


def test_the_crop_of_timms_config_json_becomes_pixels_as_in_timm(tmp_path):
    """timm drops the fraction of 224 / 0.95 = 235.8."""
    settings = {"input_size": [3, 224, 224], "crop_pct": 0.95, "interpolation": "bicubic"}
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": settings}))
    config = settled(tmp_path, arch="resnet50", evaluation_like="timm")
    assert (config.image_size, config.crop_padding) == (224, 11)
    squashed = settings | {"crop_mode": "squash", "crop_pct": 1.0}
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": squashed}))
    config = settled(tmp_path, arch="resnet50", evaluation_like="timm")
    assert (config.eval_crop, config.crop_padding) == ("squash", 0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"mode": "train"}, "is for --mode eval, predict and export"),
        ({"mode": "predict", "eval_crop": "crop"}, "resizes before it cuts"),
    ],
)
def test_where_it_cannot_work_it_is_refused(tmp_path, folders, flags, message):
    file = tmp_path / "x.pth"
    file.touch()
    given = {"pretrained_from_file": str(file), "arch": "resnet50", "data_dir": str(folders)}
    given |= {"image": str(file)} if flags["mode"] == "predict" else {}
    with pytest.raises(ConfigError, match=message):
        configure(**given, **flags, evaluation_like="timm")


def test_without_the_flag_nothing_changes():
    crop = eval_crop(Config())
    assert (crop.method, crop.arithmetic, crop.rounded) == ("crop", "own", True)
