"""Loads the weights of a file into a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convoy.model import catalog
from convoy.model.weights.classifier_head import Heads, match_heads, take_over
from convoy.model.weights.files import WeightFileError, read_weights
from convoy.model.weights.fit import SHOWN, Fit, check_fit, fit, se_ratio, shapes_text
from convoy.model.weights.suggest import SUGGESTED, Suggestion, suggest
from convoy.utils.optional import known
from convoy.utils.text import some

if TYPE_CHECKING:
    import keras


@dataclass
class LoadReport:
    """The result of `load_pretrained`. `lines()` is the text for people.

    Attributes:
        suggested: see `Suggestion`.
        loaded: our variables that were assigned.
        head_replaced: whether the classifier kept its initial values because the file's has
            another number of classes, or none.
        unmatched_model: our variables that kept their initial values, including the head.
        unmatched_file: tensors of the file that were not used.
        mismatched: variables and tensors whose shapes differ; see `fit.Fit`.
        warnings: differences between the model's build and what the file implies.
        classes: lines about the classifier, if its classes were matched by name.
    """

    suggested: Suggestion
    num_classes: int | None = None
    loaded: list[str] = field(default_factory=list)
    head_replaced: bool = False
    unmatched_model: list[str] = field(default_factory=list)
    unmatched_file: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Returns the report for people."""
        s = self.suggested
        which = " (its moving average)" if s.variant == "ema" else ""
        text = [f"{len(self.loaded)} tensors from {s.path}{which}, which has {s.scheme}"]
        text += self.classes
        if self.head_replaced and not self.classes:
            had = f"{s.num_classes} classes" if s.num_classes else "no classifier"
            text.append(f"new classifier for {self.num_classes} classes: the file has {had}")
        if self.mismatched:
            told = shapes_text(self.mismatched)
            text.append(f"{len(self.mismatched)} tensors of another shape: {told}")
        for what, names in (
            ("kept at their initial values", self.unmatched_model),
            ("in the file but not used", self.unmatched_file),
        ):
            if names:
                text.append(f"{len(names)} tensors {what}: {some(names, SHOWN)}")
        return text + [f"note: {note}" for note in s.notes] + self.warnings


def load_pretrained(
    model: keras.Model,
    arch: str,
    path: str | Path,
    *,
    strict: bool = False,
    partial: bool = False,
    ema: bool | None = None,
    padding: str | None = None,
    class_names: Sequence[str] | None = None,
    file_class_names: Sequence[str] | None = None,
) -> LoadReport:
    """Assigns the weights in a file to a model built by `build_model(arch, …)`.

    If both sides name their classes, an output takes the file's weights of the same class, and
    outputs for new classes keep their initial values. Otherwise the classifier comes from the file,
    or keeps its initial values if the file has another number of classes.

    Args:
        model: changed in place.
        arch: the model's architecture.
        path: see `model.weights.files.read_weights`.
        strict: the classifier must match as well.
        partial: assign what matches and leave the rest unchanged; the report lists the rest.
        ema: see `model.weights.files.read_weights`.
        padding: as in `inspect`; here it only affects the report.
        class_names: class names of the model's outputs, in order.
        file_class_names: class names of the file, as found by `origin.how_applied`.

    Raises:
        WeightFileError: the file cannot be read, or something does not match; nothing is assigned.
    """
    entry = catalog.get_arch(arch)
    file = read_weights(path, ema=ema)
    scheme, suggested = suggest(file, entry, padding)
    variables = {v.path: v for v in model.weights}
    shapes = {ours: tuple(v.shape) for ours, v in variables.items()}
    found = fit(file, scheme, entry.family, shapes)
    check_fit(found, file, scheme, entry, suggested.called, suggested.stranger, partial)
    classes: list[str] = []
    if class_names and file_class_names and len(file_class_names) <= (found.file_classes or 0):
        heads = match_heads(class_names, file_class_names)
        classes = heads.lines(class_names, file_class_names)
        if found.head_replaced or not heads.as_it_is:
            whole = fit(file, scheme, entry.family, _with_head_of(shapes, entry, found))
            _put_head(found, whole, heads, variables, entry)
    num_classes = shapes[f"{catalog.HEADS[entry.family]}/kernel"][-1]
    report = _report(found, suggested, model_arguments(model), num_classes, classes)
    if strict and (report.unmatched_model or report.unmatched_file):
        raise WeightFileError(
            f"{file.path} does not match {entry.name} in full, as strict loading asks:"
            f" {'; '.join(report.lines()[1:])}"
        )
    for ours, value in found.values.items():
        variables[ours].assign(value)
    return report


def _report(
    found: Fit,
    suggested: Suggestion,
    built: Mapping[str, Any],
    num_classes: int,
    classes: list[str],
) -> LoadReport:
    """Returns the report on assigning `found`; `built` has the model's arguments."""
    return LoadReport(
        suggested,
        num_classes,
        loaded=list(found.values),
        head_replaced=found.head_replaced,
        unmatched_model=found.missing + found.head_missing,
        unmatched_file=found.surplus + found.head_surplus,
        mismatched=found.mismatched,
        warnings=_differences(built, suggested.arguments),
        classes=classes,
    )


def _with_head_of(
    shapes: Mapping[str, tuple[int, ...]], arch: catalog.Arch, found: Fit
) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a model with as many classes as the file has."""
    head, classes = f"{catalog.HEADS[arch.family]}/", known(found.file_classes)
    return {n: (*s[:-1], classes) if n.startswith(head) else s for n, s in shapes.items()}


def _put_head(
    found: Fit, whole: Fit, heads: Heads, variables: Mapping[str, Any], arch: catalog.Arch
) -> None:
    """Replaces the classifier in `found` by one with outputs matched by name.

    Args:
        found: the fit to change.
        whole: the file's fit with all of its classes.
        heads: which outputs belong to the same class.
        variables: the model's, by path.
        arch: the model's architecture.
    """
    head = f"{catalog.HEADS[arch.family]}/"
    ours = [path for path in variables if path.startswith(head)]
    found.head_missing, found.head_surplus = [], []
    for path in ours:
        found.values.pop(path, None)
    if heads.pairs:
        initial = {path: variables[path].numpy() for path in ours}
        found.head_replaced = False
        found.values |= take_over(heads, initial, whole.values)
    else:
        found.head_replaced, found.head_missing = True, ours


def model_arguments(model: keras.Model) -> dict[str, Any]:
    """Returns the arguments of `SUGGESTED` with which a model was built, from its layers."""
    import keras

    layers = {layer.name: layer for layer in model.layers}
    norm = next(x for x in model.layers if isinstance(x, keras.layers.BatchNormalization))
    first = next(x.name for x in model.layers if isinstance(x, keras.layers.Conv2D))
    found = {
        "activation": keras.activations.serialize(norm.activation),
        "padding": "symmetric" if f"{first}_pad" in layers else "same",
        "bn_epsilon": norm.epsilon,
        "bn_momentum": norm.momentum,
        "se_ratio": se_ratio({v.path: v for v in model.weights}),
        "mean": list(layers["normalization"].mean),
        "std": list(layers["normalization"].std),
    }
    if found["activation"] == "silu":  # Keras' other name for it
        found["activation"] = "swish"
    return {k: v for k, v in found.items() if v is not None}


def _differences(built: Mapping[str, Any], implied: Mapping[str, Any]) -> list[str]:
    """Returns warnings about arguments that change the logits."""
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
    """Stops (or resumes) training of all layers but the classifier, including batch norms."""
    head = catalog.HEADS[catalog.get_arch(arch).family]
    for layer in model.layers:
        layer.trainable = not frozen or layer.name == head
