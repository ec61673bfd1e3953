"""Checks by names and shapes whether a weight file's tensors are those of an architecture.

Imports no TensorFlow, so that a file that does not fit is rejected before data and model are
prepared. The classifier is checked separately: fine-tuning starts from one with other classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from convoy.model.arithmetic import weight_shapes
from convoy.model.catalog import HEADS, Arch, get_arch, list_archs
from convoy.model.weights.files import WeightFile, WeightFileError
from convoy.model.weights.names import Scheme, source_names, to_keras
from convoy.model.weights.unknown_networks import nearest, network
from convoy.utils.text import some

ALL_THE_SAME = "To load only the tensors that fit: --pretrained_partial"
SHOWN = 3  # names in a message; a network has hundreds
# Our models' layers below the classifier. Any other layer of a Keras file is its own classifier.
_BACKBONE = re.compile(r"(stem_|top_conv|top_bn|block\d|conv1$|bn1$|layer\d)")


@dataclass
class Fit:
    """The match between a file's tensors and a model's variables.

    Attributes:
        values: the file's arrays in our layout, by our paths.
        missing: our variables that the file lacks.
        mismatched: our variables with another shape in the file: "ours: (…) in the file, (…) in the
            model".
        surplus: the file's tensors that have no place in the model.
        head_missing, head_surplus: the same for the classifier.
        file_classes: number of classes of the file's classifier; None if it has no classifier of a
            known kind.
        head_replaced: whether the file's classifier has another number of classes, or is missing.
    """

    file_classes: int | None
    head_replaced: bool
    values: dict[str, np.ndarray] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)
    head_missing: list[str] = field(default_factory=list)
    head_surplus: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Returns whether everything but the classifier matches one to one."""
        return not (self.missing or self.mismatched or self.surplus)

    @property
    def share(self) -> float:
        """Returns the fraction of all tensors on both sides that match, without the classifiers."""
        apart = len(self.missing) + len(self.mismatched) + len(self.surplus)
        return len(self.values) / max(1, len(self.values) + apart)


def fit(
    file: WeightFile, scheme: Scheme, family: str, shapes: Mapping[str, tuple[int, ...]]
) -> Fit:
    """Matches a file's tensors with the variables of a model of `family`, given by their shapes."""
    names, head = source_names(shapes, scheme), HEADS[family]
    classes = _classes(file, scheme, names.get(f"{head}/kernel"))
    found = Fit(classes, classes != shapes[f"{head}/kernel"][-1])
    used = set()
    for ours, shape in shapes.items():
        theirs, of_head = names.get(ours), ours.startswith(f"{head}/")
        if theirs not in file.arrays or (of_head and found.head_replaced):
            (found.head_missing if of_head else found.missing).append(ours)
            continue
        array = file.arrays[theirs]
        used.add(theirs)
        value = array if scheme.program == "keras" else to_keras(array, ours, shape)
        if value.shape != tuple(shape):
            found.mismatched.append(
                f"{ours}: {_shape(value.shape)} in the file, {_shape(shape)} in the model"
            )
        else:
            found.values[ours] = value
    for name in sorted(file.arrays.keys() - used):
        if not name.startswith("normalization/"):  # becomes mean and std
            of_head = _of_head(name, scheme, names[f"{head}/kernel"])
            (found.head_surplus if of_head else found.surplus).append(name)
    return found


def _shape(shape: Sequence[int]) -> str:
    return f"({','.join(map(str, shape))})"


def _names_text(names: Sequence[str]) -> str:
    return some(names, SHOWN)


def shapes_text(mismatched: Sequence[str]) -> str:
    """Lists the first few of `Fit.mismatched` in full."""
    more = f"; … ({len(mismatched)} in all)" if len(mismatched) > SHOWN else ""
    return "; ".join(mismatched[:SHOWN]) + more


def _classes(file: WeightFile, scheme: Scheme, name: str | None) -> int | None:
    head = None if name is None else file.arrays.get(name)
    if head is None or head.ndim < 2:
        return None
    return int(head.shape[-1 if scheme.program == "keras" else 0])


def _of_head(name: str, scheme: Scheme, head: str) -> bool:
    """Returns whether a tensor belongs to the file's classifier, which may have several layers."""
    if scheme.program == "keras":
        return not _BACKBONE.match(name)
    return name.split(".")[0] == head.split(".")[0]


def num_classes(file: WeightFile, scheme: Scheme, family: str) -> int | None:
    """Returns the number of classes of a file's classifier; None if it has none."""
    path = f"{HEADS[family]}/kernel"
    return _classes(file, scheme, source_names([path], scheme)[path])


def se_ratio(arrays: Mapping[str, np.ndarray]) -> float | None:
    """Returns ResNets' squeeze units as a fraction of the filters; None if all have one number."""
    pairs = []
    for name, array in arrays.items():
        if name.endswith(("se.fc1.weight", "squeeze.squeeze.weight")):
            pairs.append((array.shape[0], array.shape[1]))
        elif re.fullmatch(r"layer\d+_\d+_se_reduce/kernel", name):
            pairs.append((array.shape[-1], array.shape[-2]))
    if len({units for units, _ in pairs}) < 2:
        return None
    ratios = {units / filters for units, filters in pairs}
    return ratios.pop() if len(ratios) == 1 else None


def check_fit(
    found: Fit,
    file: WeightFile,
    scheme: Scheme,
    arch: Arch,
    called: str | None,
    stranger: str | None,
    partial: bool,
) -> None:
    """Raises if parts of model or file would be left out without the user's consent.

    Those parts of the model would stay random, those of the file unused.

    Args:
        found: result of `fit`.
        file: what was read.
        scheme: the file's names for tensors.
        arch: the model's architecture.
        called: see `suggest.Suggestion`.
        stranger: see `suggest.Suggestion`.
        partial: the user wants to load a part; one matching tensor is then enough.

    Raises:
        WeightFileError: the file does not fit; the message has counts, some names and the way out.
    """
    if stranger and not partial:
        raise WeightFileError(
            f"{file.path} does not fit {arch.name}: going by the name {stranger} it holds a network"
            " with the same tensors whose strides blur or average (anti-aliasing), so its results"
            f" would be others. {ALL_THE_SAME}"
        )
    if found.whole or (partial and found.values):
        return
    total = len(found.values) + len(found.missing) + len(found.mismatched)
    parts = [
        f"{what}: {len(names)}{of} ({told(names)})"
        for what, of, names, told in (
            ("missing in the file", f" of its {total} tensors", found.missing, _names_text),
            ("of another shape", "", found.mismatched, shapes_text),
            ("left over in the file", "", found.surplus, _names_text),
        )
        if names
    ]
    way = "" if partial else f". {ALL_THE_SAME}"
    raise WeightFileError(
        f"{file.path} does not fit {arch.name}: {'; '.join(parts)}."
        f" {seems(file, scheme, arch.family, called, {arch.name: found})}{way}"
    )


def seems(
    file: WeightFile,
    scheme: Scheme,
    family: str,
    called: str | None,
    tried: Mapping[str, Fit] | None = None,
) -> str:
    """Returns a sentence about what a file contains instead of the expected weights.

    Args:
        file: what was read.
        scheme: the file's names for tensors.
        family: the family of the expected architecture.
        called: see `suggest.Suggestion`.
        tried: the fits of architectures that were already tried, by name.
    """
    fits, ratio = dict(tried or {}), se_ratio(file.arrays)
    for name in list_archs():
        other = get_arch(name)
        if other.available and other.family == family and name not in fits:
            fits[name] = fit(file, scheme, family, weight_shapes(other, se_ratio=ratio))
    best = max(fits, key=lambda name: fits[name].share)
    if fits[best].whole:
        return f"It holds {best}: give --arch {best}"
    missing = [name for found in (tried or {}).values() for name in found.missing]
    if missing and all("_se_" in name for name in missing):
        kind = "It has no squeeze-and-excitation, but is not one of the Lite models"
    elif fits[best].share < 0.5:
        what = network(file.arrays) or "another network"
        kind = f"It holds {what}, which --mode list does not have. {nearest(file.arrays)}"
    else:
        kind = f"It is a variant of {best} that is not known here"
    return f"It calls itself {called}. {kind}" if called else kind
