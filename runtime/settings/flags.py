"""How a flag is declared: group, scope, help, older names, range, and what its value is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any, Literal, NamedTuple

MODES = (
    *("train_and_eval", "train", "lr_find", "eval", "predict", "export", "convert"),
    *("training_benchmark", "inference_benchmark", "list", "summary", "report", "env"),
)
AUTO = "auto"
"""A value of `--train_batch_size`, until the number is found."""
MADE_IN = "made_in"
"""A key of `config.yaml` beside the settings: the folder to which its paths are relative."""
MODE_ALIASES = {"prediction": "predict", "evaluate": "eval", "test": "eval"}

# The ranges that numbers may be limited to: what holds, and how it is said.
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


class Scope(NamedTuple):
    """What a flag decides, and so who has a use for its value after the launch.

    Attributes:
        inherited: modes that apply a run's checkpoint take the value from the run.
        told: a resumed run says so if the value has changed, as training goes on differently.
    """

    name: str
    inherited: bool
    told: bool


LAUNCH = Scope("launch", inherited=False, told=False)
"""One launch: its folder, its length, its input and output."""
COMPUTE = Scope("compute", inherited=False, told=True)
"""How a launch computes, which may differ in the last digits: the mode, DALI, the memory layout."""
MACHINE = Scope("machine", inherited=True, told=False)
"""What goes with the machine or saves typing, and leaves the weights alone: caches, signals."""
TRAINING = Scope("training", inherited=True, told=True)
"""How the weights come about."""
EVALUATION = Scope("evaluation", inherited=True, told=True)
"""How a model is evaluated; of several side by side, each is evaluated as its own run says."""
RESULT = Scope("result", inherited=True, told=False)
"""What is reported, written and logged."""
SCOPES = (LAUNCH, COMPUTE, MACHINE, TRAINING, EVALUATION, RESULT)


def batch_number(batch: int | str) -> int:
    """Returns `--train_batch_size`, for code that runs once "auto" is replaced by a number."""
    if isinstance(batch, str):
        raise TypeError(f"--train_batch_size {batch}: the number should have been found")
    return batch


def flag(
    group: str,
    scope: Scope,
    default: Any,
    text: str,
    aliases: tuple[str, ...] = (),
    *,
    unset: str = "",
    within: Literal[
        ">= 0", ">= 1", ">= 2", "> 0", "(0, 1]", "(0, 1)", "[0, 1)", "[0, 1]", "[1, 4096]"
    ]
    | None = None,
    path: Literal["", "path", "paths", "inside"] = "",
    words: tuple[str, ...] = (),
    several: bool = False,
    on_card: bool = False,
) -> Any:
    """A field of `Config`.

    Args:
        text: the help: one sentence without a full stop, and without the default.
        unset: what holds if nobody sets the flag, where the default does not say so.
        within: the range of a number, one of `RANGES`.
        path: "path"; "paths" with commas between them; "inside" for one that is relative to the
            run's folder. `~` is a home folder in all.
        words: values of a path that are not paths.
        several: a text with commas, which YAML may write as a list.
        on_card: the model card of an export shows it.
    """
    return field(
        default=default,
        metadata={
            "group": group,
            "scope": scope,
            "help": text,
            "aliases": aliases,
            "unset": unset,
            "within": within,
            "path": path,
            "words": words,
            "several": several,
            "on_card": on_card,
        },
    )
