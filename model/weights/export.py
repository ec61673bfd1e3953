"""Writes a model's weights for other programs, and converts files between formats."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convoy.model import catalog
from convoy.model.weights.files import WeightFile, WeightFileError, read_weights
from convoy.model.weights.load import LoadReport, load_pretrained, model_arguments
from convoy.model.weights.names import recognise, scheme_for, source_names, to_torch
from convoy.model.weights.origin import ABOUT
from convoy.model.weights.suggest import stored_arguments, suggest
from convoy.utils import strict_json
from convoy.utils.files import save_tensors

if TYPE_CHECKING:
    import keras

NAMES = ("convoy", "torchvision", "timm", "nvidia", "transformers", "efficientnet_pytorch")
PROBES = 4  # number of images for comparing logits
_KNOWN_SUFFIXES = (".weights.h5", ".keras", ".safetensors")


@dataclass
class ConvertReport:
    """The result of `convert`.

    Attributes:
        source: how the source was read.
        target: the file written.
        max_logit_difference: largest absolute difference between the logits of the source's model
            and those of a model read back from the target.
        max_logit: the largest absolute logit, for comparison.
        notes: hints for readers of the target.
    """

    source: LoadReport
    target: Path
    max_logit_difference: float
    max_logit: float
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Returns the report for people."""
        return [
            *self.source.lines(),
            f"wrote {self.target}; logits differ by at most {self.max_logit_difference:.2e}"
            f" (largest logit {self.max_logit:.3g})",
            *self.notes,
        ]


def export_weights(
    model: keras.Model,
    arch: str,
    path: str | Path,
    names: str = "convoy",
    about: Mapping[str, Any] | None = None,
) -> list[str]:
    """Writes a model's weights in the format of the suffix.

    Args:
        model: built by `build_model(arch, …)`.
        arch: the model's architecture.
        path: `.keras` (graph and weights), `.weights.h5`, or `.safetensors`.
        names: one of `NAMES`, for `.safetensors` only: ours, or those of a PyTorch program in its
            layout, for `safetensors.torch.load_file` and `load_state_dict`.
        about: how to apply the weights (`model.weights.origin.how_applied`); stored only in a
            `.safetensors`.

    Returns:
        Hints for readers of the file, in words; may be empty.

    Raises:
        ValueError: the suffix or the names are unknown, or do not go together.
        WeightFileError: the file cannot be written, or the names cannot express the model.
    """
    entry = catalog.get_arch(arch)
    path = Path(path)
    suffix = check_target(path, names, entry.family)
    aside = path.with_name(f".{os.getpid()}.{path.name}")
    notes: list[str] = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix == ".keras":
            model.save(aside)
            notes.append("import convoy.model.build before keras.saving.load_model")
        elif suffix == ".weights.h5":
            model.save_weights(aside)
        else:
            notes = _save_safetensors(model, entry, aside, names, about or {})
        os.replace(aside, path)
    except OSError as error:
        raise WeightFileError(f"{path} cannot be written: {error}") from error
    finally:
        aside.unlink(missing_ok=True)
    return notes


def check_target(path: str | Path, names: str, family: str) -> str:
    """Returns the suffix of a file to write. ValueError if `export_weights` would reject it."""
    suffix = next((s for s in _KNOWN_SUFFIXES if str(path).endswith(s)), None)
    if suffix is None:
        raise ValueError(f"{path} must end in {', '.join(_KNOWN_SUFFIXES)}")
    if names not in NAMES:
        raise ValueError(f"names must be one of {', '.join(NAMES)}, not {names!r}")
    scheme_for(names, family)
    if suffix != ".safetensors" and names != "convoy":
        raise ValueError(f"{names} names go into a .safetensors file, not {path}")
    return suffix


def _save_safetensors(
    model: keras.Model, arch: catalog.Arch, path: Path, names: str, about: Mapping[str, Any]
) -> list[str]:
    from safetensors import SafetensorError

    arrays = {v.path: np.asarray(v.value) for v in model.weights}
    arguments = model_arguments(model)
    notes = []
    if names != "convoy":
        scheme = scheme_for(names, arch.family)
        theirs = source_names(arrays, scheme)
        if missing := arrays.keys() - theirs.keys():
            raise WeightFileError(f"{scheme} have no word for {', '.join(sorted(missing)[:5])}")
        arrays = {
            theirs[ours]: np.ascontiguousarray(to_torch(array, ours, scheme))
            for ours, array in arrays.items()
        }
        notes = _advice(arch, arguments, names)
    facts = {"arch": arch.name, **arguments}
    metadata = {
        "format": "convoy" if names == "convoy" else "pt",
        "arch": arch.name,
        "model": strict_json.dumps(facts),
        ABOUT: strict_json.dumps({"arch": arch.name, "image_size": model.input_shape[1], **about}),
    }
    try:
        save_tensors(arrays, path, metadata)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    return notes


def _advice(arch: catalog.Arch, arguments: dict[str, Any], names: str) -> list[str]:
    """Says what a PyTorch model needs to give the same logits."""
    same = arguments["padding"] == "same"
    padding = "TensorFlow's" if same else "symmetric"
    notes = [
        f"the PyTorch model needs batch norm epsilon {arguments['bn_epsilon']:g}, {padding}"
        f" padding, and images normalised with mean {_rounded(arguments['mean'])} and std"
        f" {_rounded(arguments['std'])} (of 0-255)"
    ]
    if same and names == "timm" and arch.family == "efficientnet":
        notes.append(f"timm's tf_{arch.name.replace('-', '_')} is built so")
    elif same and names in ("torchvision", "nvidia"):
        notes.append(f"{names}'s own models pad symmetrically and will give other logits")
    elif not same and names == "efficientnet_pytorch":
        notes.append(f"{names}'s own models pad as TensorFlow does and will give other logits")
    return notes


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 3) for value in values]


def convert(
    source: str | Path,
    target: str | Path,
    *,
    arch: str | None = None,
    names: str = "convoy",
    ema: bool | None = None,
    padding: str | None = None,
    partial: bool = False,
    image_size: int | None = None,
) -> ConvertReport:
    """Converts weights of any kind to another format, reads them back and compares logits.

    `.keras` and `.weights.h5` are read back by Keras, `.safetensors` by `load_pretrained`.

    Args:
        source: see `model.weights.files.read_weights`.
        target: see `export_weights`.
        arch: the source's architecture; our checkpoints and our `.safetensors` contain it.
        names: see `export_weights`.
        ema: True: the moving average. False: the trained weights. None: see `read_weights`.
        padding: "same" or "symmetric", if the source does not say.
        partial: accept a source with more tensors than those of `arch`, all of which it must have.
        image_size: image size in pixels for the model in a `.keras` file and for the comparison;
            None takes the source's, or otherwise the architecture's.

    Raises:
        WeightFileError: the source cannot be read, does not fit `arch`, or lacks a tensor; or the
            target cannot be written.
        ValueError: an argument is unknown, or `arch` is missing.
    """
    file = read_weights(source, ema=ema)
    name = arch or stored_arguments(file).get("arch") or _only_arch(file)
    model = _build(file, name, padding, image_size)
    report = load_pretrained(model, name, source, ema=ema, padding=padding, partial=partial)
    if report.unmatched_model or report.mismatched:
        raise WeightFileError(f"{source} cannot be converted: {'; '.join(report.lines()[1:])}")
    notes = export_weights(model, name, target, names, file.facts.get("applied"))

    images = _probes(model.input_shape[1])
    expected = np.asarray(model(images, training=False))
    again = _read_back(file, name, Path(target), padding, image_size)
    difference = np.abs(np.asarray(again(images, training=False)) - expected).max()
    return ConvertReport(
        report, Path(target), float(difference), float(np.abs(expected).max()), notes
    )


def _only_arch(file: WeightFile) -> str:
    scheme = recognise(file.arrays)
    of = f" It holds {scheme}." if scheme else ""
    raise ValueError(f"{file.path} does not say which architecture it is; give --arch.{of}")


def _build(file: WeightFile, arch: str, padding: str | None, image_size: int | None) -> keras.Model:
    from convoy.model.build import build_model

    _, suggestion = suggest(file, catalog.get_arch(arch), padding)
    if suggestion.num_classes is None:
        raise WeightFileError(f"{file.path} has no classifier; it cannot be a whole model")
    arguments = dict(suggestion.arguments)
    stored = stored_arguments(file)
    for key in ("dropout", "stochastic_depth"):
        if stored.get(key) is not None:
            arguments[key] = stored[key]
    size = image_size or stored.get("image_size")
    return build_model(arch, num_classes=suggestion.num_classes, image_size=size, **arguments)


def _read_back(
    file: WeightFile, arch: str, target: Path, padding: str | None, image_size: int | None
) -> keras.Model:
    import keras

    if target.name.endswith(".keras"):
        return keras.saving.load_model(target, compile=False)
    if target.name.endswith(".weights.h5"):
        model = _build(file, arch, padding, image_size)
        model.load_weights(target)
        return model
    size = image_size or stored_arguments(file).get("image_size")
    model = _build(read_weights(target), arch, None, size)
    load_pretrained(model, arch, target, strict=True)
    return model


def _probes(size: int) -> np.ndarray:
    """Returns images (PROBES, size, size, 3), uint8: coarse patches of colour plus noise."""
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 256, (PROBES, 4, 4, 3))
    index = np.arange(size) * 4 // size
    noise = rng.integers(-48, 49, (PROBES, size, size, 3))
    return np.clip(patches[:, index][:, :, index] + noise, 0, 255).astype(np.uint8)
