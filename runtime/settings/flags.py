"""Declares a flag: its group, scope, modes, help, aliases, range, and the kind of its value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from enum import Flag, auto
from typing import Any, Literal, NamedTuple

AUTO = "auto"
"""Value of `--train_batch_size` until the number is found."""
HIGHEST_LOSS_SCALE = 2**24
"""The largest factor for float16 gradients, fixed or adapting."""
HIGHEST_WHOLE, HIGHEST_FLOAT = 2**31 - 1, 1e38
"""The largest whole number and the largest other one, about those of int32 and float32."""
MADE_IN = "made_in"
"""Key of `config.yaml` that is not a setting: the folder where relative paths start."""

# Ranges of numbers: a test, and words that follow "must".
RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    ">= 0": (lambda x: x >= 0, "not be negative"),
    ">= 1": (lambda x: x >= 1, "be at least 1"),
    ">= 2": (lambda x: x >= 2, "be at least 2"),
    "> 0": (lambda x: x > 0, "be above 0"),
    "(0, 1]": (lambda x: 0 < x <= 1, "be above 0 and at most 1"),
    "(0, 1)": (lambda x: 0 < x < 1, "be above 0 and below 1"),
    "[0, 1)": (lambda x: 0 <= x < 1, "be at least 0 and below 1"),
    "[1, 4096]": (lambda x: 1 <= x <= 4096, "be 1 to 4096"),
    "[0, 1]": (lambda x: 0 <= x <= 1, "be a probability, 0 to 1"),
}


class Group(NamedTuple):
    """A heading in the help.

    Attributes:
        name: the heading.
        modes: the modes that use a flag of the group, unless the flag says otherwise.
    """

    name: str
    modes: tuple[str, ...]


class Scope(NamedTuple):
    """What a flag affects, which decides who uses its value after the launch.

    Attributes:
        name: name of the scope.
        inherited: whether modes that apply a run's checkpoint take the value from the run.
        told: whether a resumed run reports a changed value, because training continues differently.
    """

    name: str
    inherited: bool
    told: bool


LAUNCH = Scope("launch", inherited=False, told=False)
"""About one launch: its folder, length, input and output."""
COMPUTE = Scope("compute", inherited=False, told=True)
"""How a launch computes: mode, DALI, memory layout. Results may differ in the last digits."""
MACHINE = Scope("machine", inherited=True, told=False)
"""About the machine, or shorthand, without effect on the weights: caches, signals."""
TRAINING = Scope("training", inherited=True, told=True)
"""How the weights are trained."""
EVALUATION = Scope("evaluation", inherited=True, told=True)
"""How a model is evaluated; in a comparison, each model uses its own run's values."""
RESULT = Scope("result", inherited=True, told=False)
"""About reports, output files and logs."""
SCOPES = (LAUNCH, COMPUTE, MACHINE, TRAINING, EVALUATION, RESULT)


class Fact(Flag):
    """What else holds for a flag; `runtime.settings.flag_facts.having` lists the flags."""

    NONE = 0
    CARD = auto()
    """An export's model card shows it."""
    MODEL = auto()
    """It decides what a model computes, and so belongs to its weights. Dropout and similar flags do
    nothing outside training, and another image size is a legitimate request.
    """
    RATE = auto()
    """The learning rate depends on it."""
    DIVISION = auto()
    """It divides the images in `--data_dir` into splits, and means nothing for other images."""
    LABEL = auto()
    """It names a run or its report: any two runs differ in it, which means nothing."""


def batch_number(batch: int | str) -> int:
    """Returns `--train_batch_size`, for code that runs once "auto" is replaced by a number."""
    if isinstance(batch, str):
        raise TypeError(f"--train_batch_size {batch}: the number should have been found")
    return batch


def flag(
    group: Group,
    scope: Scope,
    default: Any,
    text: str,
    aliases: tuple[str, ...] = (),
    *,
    modes: tuple[str, ...] = (),
    unset: str = "",
    within: Literal[
        ">= 0", ">= 1", ">= 2", "> 0", "(0, 1]", "(0, 1)", "[0, 1)", "[0, 1]", "[1, 4096]"
    ]
    | None = None,
    path: Literal["", "path", "paths", "inside"] = "",
    words: tuple[str, ...] = (),
    several: bool = False,
    facts: Fact = Fact.NONE,
) -> Any:
    """Returns a field of `Config`.

    Args:
        group: heading in the help.
        scope: what the flag affects.
        default: its value if nothing sets it.
        text: the help: one sentence without a full stop, and without the default.
        aliases: older names of the flag.
        modes: the modes that use it, if not those of its group.
        unset: the default in words, for help, if `default` does not say it.
        within: the range of a number, one of `RANGES`.
        path: "path"; "paths" separated by commas; "inside": relative to the run's folder. `~` is
            expanded in all of them.
        words: values of a path that are not paths.
        several: whether the text is a list with commas, which YAML may write as a list.
        facts: what else holds for it.
    """
    return field(
        default=default,
        metadata={
            "group": group.name,
            "modes": modes or group.modes,
            "scope": scope,
            "help": text,
            "aliases": aliases,
            "unset": unset,
            "within": within,
            "path": path,
            "words": words,
            "several": several,
            "facts": facts,
        },
    )
