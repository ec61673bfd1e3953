"""Defines the kinds of flag values, and reads values from a command line, YAML or Python.

All three use the same `Kind`, so a value has the same meaning everywhere, and a wrong one gets the
same message. No TensorFlow.
"""

from __future__ import annotations

import argparse
import difflib
import math
import os
import re
from dataclasses import dataclass
from datetime import date
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from convoy.utils.places import PlaceError, expand_home

_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_WHOLE = re.compile(r"[+-]?\d+")


class ValueRefused(argparse.ArgumentTypeError, ValueError):
    """A value does not fit its flag. The text continues after the flag's name: "takes …".

    It is an ArgumentTypeError, whose text argparse keeps, and a ValueError.
    """


@dataclass(frozen=True)
class Kind:
    """The kind of value that one flag accepts.

    Attributes:
        name: the flag's name, without dashes.
        types: the types in its annotation except None, such as `(float, str)`.
        optional: whether None is accepted.
        path: "path"; "paths", separated by commas; "inside" the run's folder; "" if the value is
            not a path.
        several: whether the text is a list with commas, which YAML may write as a list.
    """

    name: str
    types: tuple[Any, ...]
    optional: bool = False
    path: Literal["", "path", "paths", "inside"] = ""
    several: bool = False

    @classmethod
    def of(cls, name: str, hint: Any, **traits: Any) -> Kind:
        """Returns the kind for a field's annotation."""
        parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        types = tuple(part for part in parts if part is not NoneType)
        return cls(name, types, optional=NoneType in parts, **traits)

    @property
    def choices(self) -> tuple[str, ...]:
        """The words of a Literal; empty for other kinds."""
        return get_args(self.types[0]) if get_origin(self.types[0]) is Literal else ()

    @property
    def is_list(self) -> bool:
        """Whether a list is accepted."""
        return any(get_origin(part) is list for part in self.types)

    @property
    def is_span(self) -> bool:
        """Whether it takes lengths of time in a run, such as 5 (epochs), 500steps or 10%."""
        part = self.types[0]
        elements = get_args(get_args(part)[0]) if get_origin(part) is list else self.types
        return elements == (float, str)

    def __call__(self, value: Any) -> Any:
        """Converts what the user wrote to the flag's value.

        Raises:
            ValueRefused: the flag does not accept it.
        """
        value = value.item() if type(value).__module__ == "numpy" and not value.shape else value
        if isinstance(value, str) and value == "null" and self.optional:
            value = None
        if value is None:
            return self._unset()
        if self.types == (bool,):
            return self._switch(value)
        if self.choices:
            return self._choice(value)
        if self.is_list:
            return self._list(value)
        return self._scalar(value)

    def _unset(self) -> Any:
        if self.optional:
            return None
        if "none" in self.choices:
            return "none"
        hint = ": write a folder ~ in quotes (in YAML a plain ~ is null)" if self.path else ""
        raise ValueRefused(f"takes {self.words()}, and cannot be null{hint}")

    def _switch(self, value: Any) -> bool:
        word = str(value).lower()
        if word not in _YES + _NO:
            raise self._refused(value)
        return word in _YES

    def _choice(self, value: Any) -> str:
        if value in self.choices:
            return str(value)
        word = {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
        near = difflib.get_close_matches(word.lower(), self.choices, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueRefused(f"takes {self.words()}, not {_shown(value)}{hint}")

    def _list(self, value: Any) -> Any:
        (inner,) = (part for part in self.types if get_origin(part) is list)
        element = Kind.of(self.name, get_args(inner)[0], path=self.path)
        if isinstance(value, str) and element.types != (str,):
            text = value.strip()
            bare = text[1:-1] if text[:1] == "[" and text[-1:] == "]" else text
            if bare == text and "," not in text and self._takes_number(value):
                return self._scalar(value)
            value = [part for part in map(str.strip, bare.split(",")) if part]
        elif not _is_sequence(value):
            if self._takes_number(value):
                return self._scalar(value)
            value = [value]
        try:
            return [element(part) for part in value]
        except ValueRefused:
            raise self._refused(value) from None

    def _takes_number(self, value: Any) -> bool:
        return float in self.types and not _is_sequence(value)

    def _scalar(self, value: Any) -> Any:
        if _is_sequence(value):
            if self.several:
                return ",".join(self._text(part) for part in value)
            raise self._refused(value)
        found: Any = None
        for part in self.types:
            found = _number(value, part) if part in (int, float) else found
            if part is str and found is None:
                found = self._text(value)
            if get_origin(part) is Literal and value in get_args(part):
                found = value
        if found is None:
            raise self._refused(value)
        return found

    def _text(self, value: Any) -> str:
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if isinstance(value, bool | dict) or not isinstance(value, str | int | float | date):
            raise self._refused(value)
        text = str(value)
        if "\0" in text:
            raise ValueRefused("contains a zero byte, which text must not contain")
        if not self.path:
            return text
        parts = text.split(",") if self.path == "paths" else [text]
        try:
            return ",".join(expand_home(part, f"--{self.name}") for part in parts)
        except PlaceError as error:
            raise ValueRefused(str(error).removeprefix(f"--{self.name} ")) from error

    def _refused(self, value: Any) -> ValueRefused:
        lost = not isinstance(value, str) and str in self.types
        quotes = ": put it in quotes" if lost else ""
        return ValueRefused(f"takes {self.words()}, not {_shown(value)}{quotes}")

    def words(self) -> str:
        """Describes the accepted values, for messages."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.types == (bool,):
            return "yes or no (also true, on, false, off)"
        if self.is_list:
            (inner,) = (part for part in self.types if get_origin(part) is list)
            (kind,) = get_args(inner)
            if kind is str:
                return "one text or several"
            spans = "epochs (30), steps (500steps) or parts of the run (10%)"
            what = "numbers" if kind is float else spans
            one = "a number, or " if float in self.types else ""
            return f"{one}comma-separated {what}"
        if self.types == (float, str):
            return "epochs (5), steps (500steps) or a part of the run (10%)"
        text = "a path" if self.path else "text"
        first = {int: "a whole number", float: "a number", str: text}[self.types[0]]
        words = [word for part in self.types[1:] for word in get_args(part)]
        return " or ".join([first, *words])


def _is_sequence(value: Any) -> bool:
    return isinstance(value, list | tuple) or type(value).__module__ == "numpy"


def _number(value: Any, kind: type) -> int | float | None:
    """Returns a finite number; None if the value is not one, or not an integer where required."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        if kind is int and (isinstance(value, int) or _WHOLE.fullmatch(str(value).strip())):
            if abs(int(value)) < 2**64:
                return int(value)
            raise ValueRefused(f"takes a whole number of at most 64 bits, not {_shown(value)}")
        number = float(value)
    except ValueRefused:
        raise
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(number):
        return None
    if kind is int:
        return int(number) if number.is_integer() and abs(number) < 2**53 else None
    return number


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    return (text if len(text) <= 60 else f"{text[:57]}…") or "an empty text"
