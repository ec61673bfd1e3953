"""Values whose type allows None although they cannot be None here."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def known(value: T | None) -> T:
    """Returns the value. For values that an earlier check has found not to be None.

    Raises:
        TypeError: it is None, which is a fault of this program.
    """
    if value is None:
        raise TypeError("a value is None that should be known here")
    return value
