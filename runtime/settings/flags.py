"""How a flag is declared: its group, help, older names, range, and what its value is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any, Literal

MODES = (
    *("train_and_eval", "train", "lr_find", "eval", "predict", "export", "convert"),
    *("training_benchmark", "inference_benchmark", "list", "summary", "report", "env"),
)
AUTO = "auto"
"""A value of `--train_batch_size`, until the number is found."""
MADE_IN = "made_in"
"""A key of `config.yaml` beside the settings: the folder to which its paths are relative."""
MODE_ALIASES = {"prediction": "predict", "evaluate": "eval"}

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


def flag(
    group: str,
    default: Any,
    text: str,
    aliases: tuple[str, ...] = (),
    *,
    within: Literal[
        ">= 0", ">= 1", ">= 2", "> 0", "(0, 1]", "(0, 1)", "[0, 1)", "[0, 1]", "[1, 4096]"
    ]
    | None = None,
    path: Literal["", "path", "paths", "inside"] = "",
    several: bool = False,
) -> Any:
    """A field of `Config`.

    Args:
        within: the range of a number, one of `RANGES`.
        path: "path"; "paths" with commas between them; "inside" for one that is relative to the
            run's folder. `~` is a home folder in all.
        several: a text with commas, which YAML may write as a list.
    """
    metadata = {"group": group, "help": text, "aliases": aliases, "within": within}
    metadata |= {"path": path, "several": several}
    return field(default=default, metadata=metadata)
