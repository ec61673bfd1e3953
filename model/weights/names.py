"""Maps names and layouts of weights between programs, with pure functions on names.

A *scheme* is a way of naming a family's weights; ours is that of keras.applications, extended to
ResNets. Kernels have these layouts (O outputs, I inputs per group, H x W window):

| layer     | Keras        | PyTorch      |
|-----------|--------------|--------------|
| conv      | (H, W, I, O) | (O, I, H, W) |
| depthwise | (H, W, O, 1) | (O, 1, H, W) |
| dense     | (I, O)       | (O, I)       |

Squeeze-and-excitation is a pair of 1x1 convolutions or of dense layers, which differ only in shape.

The names come from models built with timm 1.0, torchvision 0.28, transformers 5, NVIDIA's
DeepLearningExamples and efficientnet_pytorch 0.7.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

_BATCH_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_KERNEL = {"kernel": "weight", "bias": "bias"}


@dataclass(frozen=True)
class Scheme:
    """A way of naming weights: the `program`, the `family`, and one of the program's variants."""

    program: str
    family: str
    variant: str = ""

    def __str__(self) -> str:
        return f"{self.program}'s {self.family} names"


# The marks of a scheme: names that must all occur. The first match wins.
_MARKS = (
    (Scheme("timm", "efficientnet"), ("conv_stem.weight", "blocks.0.0.*")),
    (Scheme("torchvision", "efficientnet"), ("features.0.0.weight", "features.1.0.block.0.*")),
    (Scheme("nvidia", "efficientnet"), ("stem.conv.weight", "layers.0.block0.*")),
    (Scheme("nvidia", "efficientnet", "old"), ("stem.conv.weight", "layer1.block0.*")),
    (
        Scheme("transformers", "efficientnet"),
        ("embeddings.convolution.weight", "encoder.blocks.0.*"),
    ),
    (
        Scheme("transformers", "efficientnet", "efficientnet."),
        ("efficientnet.embeddings.convolution.weight", "efficientnet.encoder.blocks.0.*"),
    ),
    (Scheme("efficientnet_pytorch", "efficientnet"), ("_conv_stem.weight", "_blocks.0.*")),
    (Scheme("nvidia", "resnet"), ("conv1.weight", "layers.0.0.conv1.weight")),
    (Scheme("nvidia", "resnet", "old"), ("conv1.weight", "layer1.0.squeeze.*")),
    (Scheme("torchvision", "resnet"), ("conv1.weight", "layer1.0.conv1.weight")),
    (Scheme("timm", "resnet"), ("conv1.0.weight", "layer1.0.conv1.weight")),
    (Scheme("transformers", "resnet"), ("embedder.embedder.*", "encoder.stages.0.layers.0.*")),
    (
        Scheme("transformers", "resnet", "resnet."),
        ("resnet.embedder.embedder.*", "resnet.encoder.stages.0.layers.0.*"),
    ),
    (Scheme("keras", "efficientnet"), ("stem_conv/kernel", "block1a_*")),
    (Scheme("keras", "resnet"), ("conv1/kernel", "layer1_0_*")),
    (Scheme("keras", "resnet"), ("conv1_0/kernel", "layer1_0_*")),
)


def recognise(names: Collection[str]) -> Scheme | None:
    """Returns the scheme in which weights are named, or None."""
    names = set(names)
    for scheme, marks in _MARKS:
        if all(_occurs(mark, names) for mark in marks):
            return scheme
    return None


def _occurs(mark: str, names: set[str]) -> bool:
    if not mark.endswith("*"):
        return mark in names
    return any(name.startswith(mark[:-1]) for name in names)


def source_names(paths: Iterable[str], scheme: Scheme) -> dict[str, str]:
    """Returns the name of each of our variables in a scheme.

    Args:
        paths: all variables of our model, as `layer/variable`: names depend on the other layers of
            a block.
        scheme: see `recognise`.

    Returns:
        Our path -> their name, without paths that have no counterpart.
    """
    paths = list(paths)
    if scheme.program == "keras":
        return {path: path for path in paths}
    layers = list(dict.fromkeys(path.rsplit("/", 1)[0] for path in paths))
    theirs = (_efficientnet if scheme.family == "efficientnet" else _resnet)(layers, scheme)
    names = {}
    for path in paths:
        layer, variable = path.rsplit("/", 1)
        suffix = _BATCH_NORM.get(variable) or _KERNEL.get(variable)
        if layer in theirs and suffix:
            names[path] = f"{theirs[layer]}.{suffix}"
    return names


# ---- EfficientNet -------------------------------------------------------------------------------

_BLOCK = re.compile(r"block(\d+)([a-z]+)_(\w+)")

# Layers outside blocks: stem, its norm, the last convolution, its norm, the classifier.
_ENDS = ("stem_conv", "stem_bn", "top_conv", "top_bn", "predictions")
_EFFICIENTNET_ENDS = {
    "timm": ("conv_stem", "bn1", "conv_head", "bn2", "classifier"),
    "torchvision": (
        *("features.0.0", "features.0.1"),
        *("features.{last}.0", "features.{last}.1", "classifier.1"),
    ),
    "nvidia": ("stem.conv", "stem.bn", "features.conv", "features.bn", "classifier.fc"),
    "efficientnet_pytorch": ("_conv_stem", "_bn0", "_conv_head", "_bn1", "_fc"),
    "transformers": (
        *("{prefix}embeddings.convolution", "{prefix}embeddings.batchnorm"),
        *("{prefix}encoder.top_conv", "{prefix}encoder.top_bn", "classifier"),
    ),
}

_NVIDIA_ROLES = {
    "expand_conv": "expand.conv",
    "expand_bn": "expand.bn",
    "dwconv": "depsep.conv",
    "bn": "depsep.bn",
    "se_reduce": "se.squeeze",
    "se_expand": "se.expand",
    "project_conv": "proj.conv",
    "project_bn": "proj.bn",
}
_EFFICIENTNET_PYTORCH_ROLES = {
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "dwconv": "_depthwise_conv",
    "bn": "_bn1",
    "se_reduce": "_se_reduce",
    "se_expand": "_se_expand",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
}
_TRANSFORMERS_ROLES = {
    "expand_conv": "expansion.expand_conv",
    "expand_bn": "expansion.expand_bn",
    "dwconv": "depthwise_conv.depthwise_conv",
    "bn": "depthwise_conv.depthwise_norm",
    "se_reduce": "squeeze_excite.reduce",
    "se_expand": "squeeze_excite.expand",
    "project_conv": "projection.project_conv",
    "project_bn": "projection.project_bn",
}


def _efficientnet(layers: list[str], scheme: Scheme) -> dict[str, str]:
    blocks: dict[tuple[int, int], dict[str, str]] = {}
    for layer in layers:
        if match := _BLOCK.fullmatch(layer):
            place = (int(match[1]), _repeat(match[2]))
            blocks.setdefault(place, {})[match[3].replace("dwconv2", "dwconv")] = layer
    last = max((stage for stage, _ in blocks), default=0) + 1
    ends = _EFFICIENTNET_ENDS[scheme.program]
    prefix = scheme.variant if scheme.program == "transformers" else ""
    names = {
        ours: theirs.format(last=last, prefix=prefix)
        for ours, theirs in zip(_ENDS, ends, strict=True)
    }
    for number, (stage, repeat) in enumerate(sorted(blocks)):
        roles = blocks[stage, repeat]
        if scheme.program == "timm":
            start, inside = f"blocks.{stage - 1}.{repeat}", _timm_roles(set(roles))
        elif scheme.program == "torchvision":
            start, inside = f"features.{stage}.{repeat}.block", _torchvision_roles(set(roles))
        elif scheme.program == "nvidia":
            layer = f"layer{stage}" if scheme.variant == "old" else f"layers.{stage - 1}"
            start, inside = f"{layer}.block{repeat}", _NVIDIA_ROLES
        elif scheme.program == "efficientnet_pytorch":
            start, inside = f"_blocks.{number}", _EFFICIENTNET_PYTORCH_ROLES
        else:
            start, inside = f"{prefix}encoder.blocks.{number}", _TRANSFORMERS_ROLES
        names |= {ours: f"{start}.{inside[role]}" for role, ours in roles.items() if role in inside}
    return names


def _repeat(letters: str) -> int:
    """Converts a, b, … to 0, 1, …; continues after z, as L2's stages need."""
    if len(letters) == 1:
        return ord(letters) - ord("a")
    value = 0
    for letter in letters:
        value = 26 * value + ord(letter) - ord("a") + 1
    return value - 1


def _timm_roles(roles: set[str]) -> dict[str, str]:
    """Maps roles to timm's names.

    It numbers a block's norms in order, and names convolutions by the kind of block.
    """
    squeeze = {"se_reduce": "se.conv_reduce", "se_expand": "se.conv_expand"}
    if "dwconv" not in roles:  # fused
        if "expand_conv" not in roles:
            return {"project_conv": "conv", "project_bn": "bn1"}
        convs = {"expand_conv": "conv_exp", "project_conv": "conv_pwl"}
        return squeeze | convs | {"expand_bn": "bn1", "project_bn": "bn2"}
    if "expand_conv" not in roles:
        convs = {"dwconv": "conv_dw", "project_conv": "conv_pw"}
        return squeeze | convs | {"bn": "bn1", "project_bn": "bn2"}
    convs = {"expand_conv": "conv_pw", "dwconv": "conv_dw", "project_conv": "conv_pwl"}
    return squeeze | convs | {"expand_bn": "bn1", "bn": "bn2", "project_bn": "bn3"}


def _torchvision_roles(roles: set[str]) -> dict[str, str]:
    """Maps roles to torchvision's names.

    It numbers a block's parts, each a convolution (0) and its norm (1).
    """
    names: dict[str, str] = {}
    part = 0
    for conv, norm in (("expand_conv", "expand_bn"), ("dwconv", "bn"), ("se_reduce", None),
                       ("project_conv", "project_bn")):  # fmt: skip
        if conv not in roles:
            continue
        if norm is None:
            names |= {"se_reduce": f"{part}.fc1", "se_expand": f"{part}.fc2"}
        else:
            names |= {conv: f"{part}.0", norm: f"{part}.1"}
        part += 1
    return names


# ---- ResNet -------------------------------------------------------------------------------------

_UNIT = re.compile(r"layer(\d+)_(\d+)_(\w+)")
_DEEP_STEM = re.compile(r"(conv1|maxpool)_\d")


def _resnet(layers: list[str], scheme: Scheme) -> dict[str, str]:
    if scheme.program == "transformers":
        start = f"{scheme.variant}embedder.embedder"
        names = {
            "conv1": f"{start}.convolution",
            "bn1": f"{start}.normalization",
            "fc": "classifier.1",
        }
    else:
        names = {"conv1": "conv1", "bn1": "bn1", "fc": "fc"}
    deep = [layer for layer in layers if _DEEP_STEM.fullmatch(layer)]
    if scheme.program in ("timm", "torchvision"):  # the others have no such networks
        names |= {layer: layer.replace("_", ".") for layer in deep}
    for layer in layers:
        if match := _UNIT.fullmatch(layer):
            stage, unit, role = int(match[1]), int(match[2]), match[3]
            if inside := _resnet_role(role, scheme.program, bool(deep)):
                names[layer] = f"{_resnet_unit(stage, unit, scheme)}.{inside}"
    return names


def _resnet_unit(stage: int, unit: int, scheme: Scheme) -> str:
    if scheme.program == "transformers":
        return f"{scheme.variant}encoder.stages.{stage - 1}.layers.{unit}"
    if scheme.program == "nvidia" and scheme.variant != "old":
        return f"layers.{stage - 1}.{unit}"
    return f"layer{stage}.{unit}"


def _resnet_role(role: str, program: str, deep: bool) -> str | None:
    if match := re.fullmatch(r"(conv|bn)(\d)", role):
        if program != "transformers":
            return role
        part = "convolution" if match[1] == "conv" else "normalization"
        return f"layer.{int(match[2]) - 1}.{part}"
    shortcut = ("shortcut.convolution", "shortcut.normalization")
    squeeze = {"nvidia": ("squeeze.squeeze", "squeeze.expand"), "transformers": (None, None)}
    reduce, expand = squeeze.get(program, ("se.fc1", "se.fc2"))
    first = int(deep)  # after the mean of 2x2 pixels, or its stand-in without a stride
    plain = (f"downsample.{first}", f"downsample.{first + 1}")
    conv, norm = shortcut if program == "transformers" else plain
    return {
        "downsample_conv": conv,
        "downsample_bn": norm,
        "se_reduce": reduce,
        "se_expand": expand,
    }.get(role)


# ---- layouts ------------------------------------------------------------------------------------


def to_keras(array: np.ndarray, path: str, shape: tuple[int, ...]) -> np.ndarray:
    """Converts a PyTorch array to the layout and shape of our variable `path`."""
    if path.endswith("/kernel") and array.ndim in (2, 4):
        if array.ndim == 4:
            depthwise = "dwconv" in path
            array = array.transpose(2, 3, 0, 1) if depthwise else array.transpose(2, 3, 1, 0)
        else:
            array = array.T
        if {array.ndim, len(shape)} == {2, 4} and _is_one_by_one(array.shape, shape):
            array = array.reshape(shape)
    return array


def to_torch(array: np.ndarray, path: str, scheme: Scheme) -> np.ndarray:
    """Converts our variable's array to PyTorch's layout; the inverse of `to_keras`."""
    if not path.endswith("/kernel"):
        return array
    if scheme.program == "nvidia" and scheme.family == "resnet" and "_se_" in path:
        array = array.reshape(array.shape[-2:])  # these are linear layers there
    elif array.ndim == 2 and "_se_" in path:
        array = array[None, None]  # otherwise these are 1x1 convolutions
    if array.ndim == 2:
        return array.T
    return array.transpose(2, 3, 0, 1) if "dwconv" in path else array.transpose(3, 2, 0, 1)


def _is_one_by_one(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    four, two = sorted((tuple(first), tuple(second)), key=len, reverse=True)
    return four[:2] == (1, 1) and four[2:] == two


def scheme_for(name: str, family: str) -> Scheme:
    """Returns the scheme for a user's `name`.

    Raises:
        ValueError: the name is unknown.
    """
    known: dict[str, str] = {
        "convoy": "keras",
        "keras": "keras",
        "torchvision": "torchvision",
        # both are the same for ResNets
        "timm": "timm" if family == "efficientnet" else "torchvision",
        "nvidia": "nvidia",
        "transformers": "transformers",
    }
    if family == "efficientnet":
        known["efficientnet_pytorch"] = "efficientnet_pytorch"
    if name not in known:
        raise ValueError(
            f"names of a model of the family {family} must be one of {', '.join(known)},"
            f" not {name!r}"
        )
    program = known[name]
    prefix = f"{family}." if program == "transformers" else ""
    return Scheme(program, family, prefix)
