"""Matches a weight file's classifier to data with other classes, by class name.

An output's number does not identify its class: after a folder is renamed, added or removed, the
same number is another class. Imports no TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from convoy.utils.text import canonical, some


@dataclass
class Heads:
    """Says which outputs of a file's classifier a model takes over.

    Attributes:
        pairs: (the model's output, the file's) for classes with the same name.
        new: the model's classes that the file lacks.
        as_it_is: whether all outputs come from the file, in its order.
    """

    pairs: list[tuple[int, int]] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    as_it_is: bool = False

    def lines(self, ours: Sequence[str], theirs: Sequence[str]) -> list[str]:
        """Describes what is done, for people."""
        if not self.new:
            return [] if self.as_it_is else ["the classifier is the file's, its classes by name"]
        if not self.pairs:
            return [f"new classifier: the file has other classes ({some(theirs)})"]
        kept = some([ours[i] for i, _ in self.pairs])
        return [
            f"classifier: {len(self.pairs)} of {len(ours)} classes are taken from the file"
            f" ({kept}); new: {some(self.new)}"
        ]


def match_heads(ours: Sequence[str], theirs: Sequence[str]) -> Heads:
    """Matches the classes of a model with those of a file, both in the order of their outputs."""
    places = {canonical(name): i for i, name in enumerate(theirs)}
    found = Heads()
    for i, name in enumerate(ours):
        if (place := places.get(canonical(name))) is None:
            found.new.append(name)
        else:
            found.pairs.append((i, place))
    same = [(i, i) for i in range(len(theirs))]
    found.as_it_is = not found.new and found.pairs == same
    return found


def take_over(
    heads: Heads, initial: Mapping[str, np.ndarray], file: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns the classifier's initial values, with the file's outputs for the same classes.

    Args:
        heads: which outputs belong to the same class.
        initial: the model's arrays by our paths, with classes on the last axis.
        file: the file's, likewise; it may lack some.
    """
    taken = {}
    for path, array in initial.items():
        array = array.copy()
        for our, their in heads.pairs if path in file else ():
            array[..., our] = file[path][..., their]
        taken[path] = array
    return taken
