"""Lets a second pass through layers take small values from the first one.

`model.recompute` computes activations again in the backward pass. What must not happen twice, such
as an exchange between ranks, or costs a pass over the data, such as the statistics of a batch, is
remembered in the first pass. Without `recompute`, nothing is remembered.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, TypeVar

Values = TypeVar("Values")

_to: list | None = None
_from: Iterator | None = None


class Memory:
    """Holds the values of one part of a model, in the order in which its layers run."""

    def __init__(self) -> None:
        self._values: list = []

    def first_pass(self) -> contextlib.AbstractContextManager[None]:
        """Makes `remember` keep values here.

        In another memory's second pass, `recall` returns that one's values, and keeps them here.
        """
        return _using(self._values, _from)

    def second_pass(self) -> contextlib.AbstractContextManager[None]:
        """Makes `recall` return them, in the same order."""
        return _using(None, iter(self._values))


@contextlib.contextmanager
def _using(to: list | None, source: Iterator | None) -> Iterator[None]:
    global _to, _from
    before = _to, _from
    _to, _from = to, source
    try:
        yield
    finally:
        _to, _from = before


def remember(values: Values) -> Values:
    """Keeps tensors for a second pass, and returns them."""
    if _to is not None:
        _to.append(values)
    return values


def recall() -> Any:
    """Returns what the first pass remembered here; None if this is not a second pass."""
    return None if _from is None else remember(next(_from))
