"""Implements `--evaluation_like`: the size, crop and pixels with which another program evaluates.

| program | pictures become squares by |
|---|---|
| torchvision | its weights' presets: `Resize` and `CenterCrop` of Pillow images |
| timm | `create_transform`, with the `config.json` beside the file: the same two, or "squash" |
| keras | `keras.utils.load_img(path, target_size=…)`: both sides at once, nearest neighbour |
| documents | NVIDIA's documents: `tf.image` for EfficientNets, torchvision's for ResNets |

A run's own size and crop stay: they are how its weights were evaluated. No TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

from convoy.runtime.settings.config import Config, EvaluationLike, defaults
from convoy.runtime.settings.input_backend import backend
from convoy.runtime.settings.modes import APPLYING_MODES
from convoy.utils.errors import ConfigError

PROGRAMS = get_args(EvaluationLike)


class Preset(NamedTuple):
    """What one of torchvision's weight files is evaluated with: sides in pixels."""

    crop: int
    resize: int
    interpolation: str = "bilinear"


_FIRST, _SECOND = Preset(224, 256), Preset(224, 232)
# By a mark of torchvision 0.28's file names. The last of an architecture is for other names: it is
# what torchvision gives for weights="DEFAULT".
PRESETS: dict[str, dict[str, Preset]] = {
    "efficientnet-b0": {"7f5810bc": Preset(224, 256, "bicubic")},
    "efficientnet-b1": {"bac287d4": Preset(240, 256, "bicubic"), "c27df63c": Preset(240, 255)},
    "efficientnet-b2": {"c35c1473": Preset(288, 288, "bicubic")},
    "efficientnet-b3": {"b3899882": Preset(300, 320, "bicubic")},
    "efficientnet-b4": {"23ab8bcd": Preset(380, 384, "bicubic")},
    "efficientnet-b5": {"1a07897c": Preset(456, 456, "bicubic")},
    "efficientnet-b6": {"24a108a5": Preset(528, 528, "bicubic")},
    "efficientnet-b7": {"c5b4e57e": Preset(600, 600, "bicubic")},
    "efficientnetv2-s": {"dd5fe13b": Preset(384, 384)},
    "efficientnetv2-m": {"dc08266a": Preset(480, 480)},
    "efficientnetv2-l": {"59c71312": Preset(480, 480, "bicubic")},
    "resnet18": {"f37072fd": _FIRST},
    "resnet34": {"b627a593": _FIRST},
    "resnet50": {"0676ba61": _FIRST, "11ad3fa6": _SECOND},
    "resnet101": {"63fe2227": _FIRST, "cd907fc2": _SECOND},
    "resnet152": {"394f9c45": _FIRST, "f82ba261": _SECOND},
    "resnext50-32x4d": {"7cdf4587": _FIRST, "1a0047aa": _SECOND},
    "resnext101-32x8d": {"8ba56ff5": _FIRST, "110c445d": _SECOND},
}


def settings_like(program: str, arch: str, said: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Returns the settings of the program's evaluation that differ from those of the run or file.

    Args:
        program: one of `PROGRAMS`.
        arch: the architecture.
        said: what the run or the weight file says.
        file: the name of a weight file; empty for a run, whose size and crop stay.
    """
    found: dict[str, Any] = {"exif_orientation": "ignore"}
    if program == "keras":
        return found | {"eval_crop": "squash", "crop_padding": 0, "crop_pct": None}
    if program == "documents":
        usual = defaults(arch)
        names = ("eval_crop", "crop_padding", "interpolation")
        return found | {name: usual[name] for name in names} | {"crop_pct": None}
    squash = program == "timm" and said.get("eval_crop") == "squash"
    found["eval_crop"] = "squash" if squash else "resize"
    if not file:
        return found
    if program == "timm":
        if "crop_pct" not in said:  # timm's defaults
            found |= {"crop_pct": 0.875, "interpolation": "bicubic"}
        return found
    if arch not in PRESETS:
        raise ConfigError(
            f"--evaluation_like torchvision: torchvision has no weights of {arch}: give timm,"
            " keras or documents"
        )
    marks = PRESETS[arch]
    last = list(marks.values())[-1]
    preset = next((preset for mark, preset in marks.items() if mark in file), last)
    return found | {
        "image_size": preset.crop,
        "crop_padding": preset.resize - preset.crop,
        "crop_pct": None,
        "interpolation": preset.interpolation,
    }


def check_evaluation_like(config: Config) -> None:
    """Rejects `--evaluation_like` where it has no effect, or where its pixels cannot be made.

    Raises:
        ConfigError: the text names the flag.
    """
    if config.evaluation_like is None:
        return
    flag = f"--evaluation_like {config.evaluation_like}"
    if config.mode not in APPLYING_MODES:
        raise ConfigError(f"{flag} is for --mode eval, predict and export, which apply weights")
    if config.mode == "eval" and (reader := backend(config, training=False)) != "tfdata":
        raise ConfigError(f"{flag} decodes and resizes itself: leave out --data_backend {reader}")
    if config.evaluation_like != "documents" and config.eval_crop == "crop":
        raise ConfigError(
            f"{flag} resizes before it cuts: leave out --eval_crop crop, or give resize"
        )
