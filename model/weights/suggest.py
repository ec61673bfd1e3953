"""Infers the model of a weight file: the arguments of `build_model` that it implies.

They come from the file if it has them (our own files, Keras' configs, timm's config.json), and
otherwise from what is known about the program with this naming scheme.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convoy.model import catalog
from convoy.model.arithmetic import weight_shapes
from convoy.model.weights.files import WeightFile, WeightFileError, read_weights
from convoy.model.weights.fit import check_fit, fit, num_classes, se_ratio, seems
from convoy.model.weights.names import Scheme, recognise
from convoy.model.weights.timm_names import read_names
from convoy.model.weights.unknown_networks import why_not

# The possible `Suggestion.arguments`: arguments of `build_model` that change the logits of given
# weights, and the momentum in training.
SUGGESTED = ("activation", "padding", "bn_epsilon", "bn_momentum", "se_ratio", "mean", "std")

_HALF = tuple(f"efficientnetv2-{size}" for size in ("s", "m", "l", "xl"))
"""Networks whose weights by TensorFlow's authors expect images of -1 to 1."""

IMAGENET_STD = np.array(catalog.IMAGENET_STD) / 255


@dataclass(frozen=True)
class Suggestion:
    """Describes a weight file, and how to build its model.

    Attributes:
        path, kind, variant: see `WeightFile`.
        scheme: naming scheme of its tensors, such as "timm's efficientnet names".
        num_classes: number of classes of its classifier; None if it has none.
        arguments: arguments for `build_model`: some of `SUGGESTED`. Missing ones have the
            architecture's default.
        notes: assumptions about what the file does not say.
        has_ema: whether the file also has a moving average.
        called: the model's name in the file, or in timm's config.json beside it.
        stranger: the name of a network with the same tensors that we do not have.
    """

    path: Path
    kind: str
    variant: str
    scheme: str
    num_classes: int | None
    arguments: dict[str, Any]
    notes: tuple[str, ...] = ()
    has_ema: bool = False
    called: str | None = None
    stranger: str | None = None


def inspect(
    path: str | Path,
    arch: str,
    *,
    padding: str | None = None,
    ema: bool | None = None,
    partial: bool = False,
) -> Suggestion:
    """Describes a weight file before a model is built for it. Imports no TensorFlow.

    Args:
        path: see `model.weights.files.read_weights`.
        arch: the architecture to load it into.
        padding: "same" or "symmetric", if known; PyTorch's files seldom say.
        ema: as in `read_weights`.
        partial: as in `load_pretrained`.

    Raises:
        WeightFileError: the file cannot be read, or does not fit the architecture.
        ValueError: the architecture is unknown.
    """
    entry = catalog.get_arch(arch)
    file = read_weights(path, ema=ema)
    scheme, suggestion = suggest(file, entry, padding)
    classes, ratio = suggestion.num_classes or 1000, suggestion.arguments.get("se_ratio")
    found = fit(file, scheme, entry.family, weight_shapes(entry, classes, ratio))
    check_fit(found, file, scheme, entry, suggestion.called, suggestion.stranger, partial)
    return suggestion


def suggest(
    file: WeightFile, arch: catalog.Arch, padding: str | None = None
) -> tuple[Scheme, Suggestion]:
    """Returns the scheme of a file already read, and the suggestion; see `inspect`."""
    scheme = recognise(file.arrays)
    called = next(iter(_own_names(file, _config_beside(file))), None)
    if scheme is None:
        raise WeightFileError(
            f"{file.path} does not fit {arch.name}: it holds {why_not(file.arrays, called)}"
        )
    if scheme.family != arch.family:
        raise WeightFileError(
            f"{file.path} does not fit {arch.name}: it holds a model of the family"
            f" {scheme.family} ({scheme}). {seems(file, scheme, scheme.family, called)}"
        )
    stored = stored_arguments(file)
    of = stored.get("arch")
    if of and of != arch.name:
        raise WeightFileError(f"{file.path} does not fit {arch.name}: it holds {of}")

    notes: list[str] = []
    if stored:
        arguments = {k: stored[k] for k in SUGGESTED if stored.get(k) is not None}
    elif scheme.program == "keras":
        arguments = _of_keras(file, arch, notes)
    else:
        arguments = _of_torch(file, scheme, arch, padding, notes)
    if "se_ratio" not in arguments and (ratio := se_ratio(file.arrays)) is not None:
        arguments["se_ratio"] = ratio
    if padding:
        arguments["padding"] = padding
    classes = num_classes(file, scheme, arch.family)
    stranger = read_names(_names_of(file)).stranger if file.kind == "torch" else None
    return scheme, Suggestion(
        *(file.path, file.kind, file.variant, _told(file, scheme), classes),
        *(arguments, tuple(notes), file.has_ema, called, stranger),
    )


def _told(file: WeightFile, scheme: Scheme) -> str:
    """Describes the naming of its tensors for people: our names are those of keras.applications."""
    return "Convoy's names" if file.kind == "convoy" else str(scheme)


def stored_arguments(file: WeightFile) -> dict[str, Any]:
    """Returns the arguments of `build_model` stored in our own files; empty for others."""
    stored = file.facts.get("model")
    return stored if isinstance(stored, dict) else {}


# ---- what Keras' files say ----------------------------------------------------------------------


def _of_keras(file: WeightFile, arch: catalog.Arch, notes: list[str]) -> dict[str, Any]:
    mean, variance = (file.arrays.get(f"normalization/{k}") for k in ("mean", "variance"))
    if "config" in file.facts:
        return _of_config(file.facts["config"], mean, variance)
    applications = {"padding": "same", "bn_epsilon": 1e-3, "bn_momentum": 0.99}
    if mean is not None and variance is not None:
        # Files of keras.applications store ImageNet's standard deviations where the layer expects
        # variances; those models divide again by their root.
        std = np.sqrt(np.asarray(variance, np.float64))
        if np.allclose(variance, IMAGENET_STD, atol=1e-3):
            std *= np.sqrt(IMAGENET_STD)
        return applications | _normalisation(np.asarray(mean, np.float64), std)
    if file.facts.get("keras") == 2 and "v2" in arch.name:
        notes.append(f"{file.path.name} is taken for one of keras.applications")
        # B0 to B3 use ImageNet's usual normalisation, in a layer without weights.
        half = {"mean": [128.0] * 3, "std": [128.0] * 3} if arch.name.startswith(_HALF) else {}
        return applications | {"bn_momentum": 0.9} | half
    notes.append(f"{file.path.name} does not say how its model is built; the defaults are taken")
    return {}


def _normalisation(mean: np.ndarray, std: np.ndarray) -> dict[str, list[float]]:
    """Converts arguments for images in 0-1 to arguments for 0-255, as plain lists of three."""
    mean, std = (np.broadcast_to(255 * value.reshape(-1), (3,)) for value in (mean, std))
    return {"mean": [float(v) for v in mean], "std": [float(v) for v in std]}


def _of_config(
    config: Mapping[str, Any], mean: np.ndarray | None, variance: np.ndarray | None
) -> dict[str, Any]:
    """Reads a functional model's config: its preprocessing layers, padding and batch norm."""
    arguments: dict[str, Any] = {}
    # The stem's input is scale * image + shift.
    scale: np.ndarray = np.ones(3)
    shift: np.ndarray = np.zeros(3)
    layers = config.get("config", {}).get("layers", [])
    for layer in layers:
        settings, kind = layer.get("config", {}), layer.get("class_name", "")
        if kind == "Normalize":
            scale = scale / np.array(settings["std"])
            shift = (shift - np.array(settings["mean"])) / np.array(settings["std"])
        elif kind == "Rescaling":
            factor = np.array(settings["scale"], np.float64)
            shift = shift * factor + np.array(settings.get("offset", 0.0))
            scale = scale * factor
        elif kind == "Normalization":
            # Either constants of the layer, or adapted, and then among the weights.
            centre = mean if settings.get("mean") is None else settings["mean"]
            spread = variance if settings.get("variance") is None else settings["variance"]
            if centre is not None and spread is not None:
                deviation = np.sqrt(np.asarray(spread, np.float64).reshape(-1))
                scale, shift = scale / deviation, (shift - np.ravel(centre)) / deviation
        elif kind.endswith(("BatchNorm", "BatchNormalization")) and "bn_epsilon" not in arguments:
            arguments["bn_epsilon"] = settings["epsilon"]
            arguments["bn_momentum"] = settings["momentum"]
            if settings.get("activation") is not None:
                arguments["activation"] = str(settings["activation"]).replace("silu", "swish")
        elif kind == "Activation" and settings.get("name") in ("stem_activation", "act1"):
            arguments["activation"] = str(settings["activation"]).replace("silu", "swish")
    # Only our symmetric models have both kinds of layers; keras.applications pads like "same".
    ours = {"Normalize", "ZeroPadding2D"} <= {layer.get("class_name") for layer in layers}
    arguments["padding"] = "symmetric" if ours else "same"
    std = 1 / scale
    return arguments | _normalisation(-shift * std / 255, std / 255)


# ---- what is known of PyTorch's files -----------------------------------------------------------


def _of_torch(
    file: WeightFile, scheme: Scheme, arch: catalog.Arch, padding: str | None, notes: list[str]
) -> dict[str, Any]:
    config = _config_beside(file)
    said = read_names(_names_of(file))
    arguments: dict[str, Any] = {"padding": "symmetric", "bn_epsilon": 1e-5, "bn_momentum": 0.9}
    half = said.half
    # Except for timm's own Lite0, all Lite weights are TensorFlow's, with its mean and deviation.
    imagenet = scheme.program == "timm" and arch.mean != catalog.IMAGENET_MEAN
    if scheme.family == "efficientnet":
        slow = {"bn_epsilon": 1e-3, "bn_momentum": 0.99}
        if scheme.program == "timm":
            if said.tf or padding == "same":
                arguments |= {"padding": "same", "bn_epsilon": 1e-3}
                half = half or arch.name.startswith(_HALF) or imagenet
            elif said.tf is None:
                notes.append(
                    "timm names efficientnet and tf_efficientnet weights alike; taken for the"
                    " first (symmetric padding, epsilon 1e-5), since nothing says tf_. If that is"
                    " wrong, give padding same"
                )
        elif scheme.program == "torchvision":
            if arch.name.endswith(("b5", "b6", "b7")):
                arguments |= slow
            elif arch.name.startswith("efficientnetv2"):
                arguments["bn_epsilon"] = 1e-3
        elif scheme.program == "nvidia":
            arguments |= slow
        else:  # transformers and efficientnet_pytorch copied TensorFlow's
            arguments |= slow | {"padding": "same"}
    if half:
        arguments |= {"mean": [127.5] * 3, "std": [127.5] * 3}
    elif imagenet:
        arguments |= {"mean": list(catalog.IMAGENET_MEAN), "std": list(catalog.IMAGENET_STD)}
    stored = config.get("pretrained_cfg", config)
    if isinstance(stored, Mapping):
        for name in ("mean", "std"):
            value = stored.get(name)
            if isinstance(value, list) and len(value) == 3:
                arguments[name] = [255.0 * float(v) for v in value]
    return arguments


def _names_of(file: WeightFile) -> list[str]:
    """Returns all names that a file's model may go by.

    They are in the file, in timm's config.json beside it, in the names of file and folder, and in
    the hub's cache (`models--timm--NAME/snapshots/HASH/`).
    """
    parent, *further = (folder.name for folder in file.path.absolute().parents)
    cached = [name for name in further[:2] if name.startswith("models--")]
    return [*_own_names(file, _config_beside(file)), file.path.name, parent, *cached]


def _own_names(file: WeightFile, config: Mapping[str, Any]) -> list[str]:
    said = [config.get("architecture")]
    said += [file.facts.get(key) for key in ("arch", "architecture", "model_name")]
    return [text for text in said if isinstance(text, str)]


def _config_beside(file: WeightFile) -> dict[str, Any]:
    try:
        config = json.loads(file.path.with_name("config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}
