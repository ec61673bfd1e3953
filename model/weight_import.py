"""Puts the weights of a file into a model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convoy.model import catalog
from convoy.model.weight_files import WeightFile, WeightFileError, read_weights
from convoy.model.weight_names import HEADS, source_names, to_keras
from convoy.model.weight_suggest import SUGGESTED, Suggestion, se_ratio, suggest

if TYPE_CHECKING:
    import keras

# Below this part of the model's own tensors, the file is taken to be of another architecture.
LEAST_MATCH = 0.5


@dataclass
class LoadReport:
    """What `load_pretrained` did. `lines()` is the text for people.

    Attributes:
        suggested: See `Suggestion`.
        loaded: Our variables that were assigned.
        head_replaced: Whether the classifier kept its initial values because the file's has
            another number of classes, or none.
        unmatched_model: Our variables that kept their initial values, head included.
        unmatched_file: Tensors of the file that were not used.
        mismatched: Of both, those whose shapes differ: "ours (shape) / theirs (shape)".
        warnings: Where the model is built differently from what the file implies.
    """

    suggested: Suggestion
    num_classes: int | None = None
    loaded: list[str] = field(default_factory=list)
    head_replaced: bool = False
    unmatched_model: list[str] = field(default_factory=list)
    unmatched_file: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        s = self.suggested
        which = " (its moving average)" if s.variant == "ema" else ""
        text = [f"{len(self.loaded)} tensors from {s.path}{which}, which has {s.scheme}"]
        if self.head_replaced:
            had = f"{s.num_classes} classes" if s.num_classes else "no classifier"
            text.append(f"new classifier for {self.num_classes} classes: the file has {had}")
        for what, names in (
            ("of another shape", self.mismatched),
            ("kept at their initial values", self.unmatched_model),
            ("in the file but not used", self.unmatched_file),
        ):
            if names:
                text.append(f"{len(names)} tensors {what}: {', '.join(names)}")
        return text + [f"note: {note}" for note in s.notes] + self.warnings


def load_pretrained(
    model: keras.Model,
    arch: str,
    path: str | Path,
    *,
    strict: bool = False,
    ema: bool | None = None,
    padding: str | None = None,
) -> LoadReport:
    """Assigns the weights in a file to a model built by `build_model(arch, …)`.

    The classifier keeps its initial values if the file's has another number of classes. So does
    whatever the file lacks; all of it is listed in the report.

    Args:
        model: Changed in place.
        arch: What the model is.
        path, ema: See `model.weight_files.read_weights`.
        strict: Raise if anything is left unmatched on either side; nothing is assigned then.
        padding: As in `inspect`; here it only affects the report.

    Raises:
        WeightFileError: the file cannot be read, or belongs to another architecture, or `strict`
            and something does not match.
    """
    entry = catalog.get_arch(arch)
    file = read_weights(path, ema=ema)
    scheme, suggested = suggest(file, entry, padding)
    variables = {v.path: v for v in model.weights}
    names = source_names(variables, scheme)
    head = HEADS[entry.family]
    classes = int(variables[f"{head}/kernel"].shape[-1])
    report = LoadReport(suggested, classes, head_replaced=suggested.num_classes != classes)

    values: dict[str, np.ndarray] = {}
    for ours, variable in variables.items():
        theirs = names.get(ours)
        if theirs not in file.arrays or (report.head_replaced and ours.startswith(f"{head}/")):
            report.unmatched_model.append(ours)
            continue
        array, shape = file.arrays[theirs], tuple(variable.shape)
        fitting = array if array.shape == shape else None
        if scheme.program != "keras":
            fitting = to_keras(array, ours, shape)
        if fitting is None:
            report.mismatched.append(f"{ours} {shape} / {theirs} {array.shape}")
        else:
            values[ours] = fitting
    report.loaded = list(values)
    used = {names[ours] for ours in values} | _preprocessing(file)
    report.unmatched_file = sorted(name for name in file.arrays if name not in used)
    report.warnings = _differences(model_arguments(model, entry), suggested.arguments)

    _check_match(report, len(variables), entry.name, strict)
    for ours, value in values.items():
        variables[ours].assign(value)
    return report


def _preprocessing(file: WeightFile) -> set[str]:
    """Tensors that `Suggestion.arguments` accounts for as mean and std."""
    return {name for name in file.arrays if name.startswith("normalization/")}


def _check_match(report: LoadReport, total: int, arch: str, strict: bool) -> None:
    path = report.suggested.path
    if len(report.loaded) < LEAST_MATCH * total:
        wrong = ", ".join(report.mismatched[:3] or report.unmatched_model[:3])
        raise WeightFileError(
            f"{path} does not fit {arch}: only {len(report.loaded)} of its {total} tensors are"
            f" there in the right shape (not, for example, {wrong})"
        )
    left = report.mismatched + report.unmatched_model + report.unmatched_file
    if strict and left:
        raise WeightFileError(
            f"{path} does not match {arch} in full, as strict loading asks:"
            f" {'; '.join(report.lines()[1:])}"
        )


def model_arguments(model: keras.Model, arch: catalog.Arch) -> dict[str, Any]:
    """Those of `SUGGESTED` with which a model was built, read off its layers."""
    import keras

    layers = {layer.name: layer for layer in model.layers}
    norm = next(x for x in model.layers if isinstance(x, keras.layers.BatchNormalization))
    first = "stem_conv" if arch.family == "efficientnet" else "conv1"
    found = {
        "activation": keras.activations.serialize(norm.activation),
        "padding": "symmetric" if f"{first}_pad" in layers else "same",
        "bn_epsilon": norm.epsilon,
        "bn_momentum": norm.momentum,
        "se_ratio": se_ratio({v.path: v for v in model.weights}),
        "mean": list(layers["normalization"].mean),
        "std": list(layers["normalization"].std),
    }
    if found["activation"] == "silu":  # Keras' other name of it
        found["activation"] = "swish"
    return {k: v for k, v in found.items() if v is not None}


def _differences(built: Mapping[str, Any], implied: Mapping[str, Any]) -> list[str]:
    """Warnings on arguments that change the logits."""
    warnings = []
    for name in SUGGESTED:
        if name == "bn_momentum" or name not in implied or name not in built:
            continue
        ours, theirs = built[name], implied[name]
        if isinstance(theirs, str):
            same = ours == theirs
        else:
            pairs = zip(np.ravel(ours), np.ravel(theirs), strict=True)
            same = all(math.isclose(a, b, rel_tol=2e-3, abs_tol=1e-9) for a, b in pairs)
        if not same:
            warnings.append(f"warning: built with {name} {ours}, but the file implies {theirs}")
    return warnings


def freeze_backbone(model: keras.Model, arch: str, frozen: bool = True) -> None:
    """Stops (or resumes) the training of all layers but the classifier; batch norms included."""
    head = HEADS[catalog.get_arch(arch).family]
    for layer in model.layers:
        layer.trainable = not frozen or layer.name == head
