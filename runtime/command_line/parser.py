"""The grammar of the command line: one option for each field of `Config`, help, answers to typos.

Help and shell completion are jsonargparse's; what a flag takes is its `Kind`'s.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, DefaultHelpFormatter, set_parsing_settings

from convoy.runtime.settings.config import MODE_ALIASES, MODES, Config, kinds
from convoy.runtime.settings.recipes import read_recipe
from convoy.runtime.settings.values import Kind
from convoy.utils.errors import ConfigError
from convoy.utils.places import PlaceError, expand_home
from convoy.utils.text import for_reader

# What other programs call our flags, where the nearest spelling would be another one.
ELSEWHERE = {
    **dict.fromkeys(("lr", "learning_rate", "lerning_rate", "base_lr"), "lr_init"),
    **dict.fromkeys(("epochs", "num_epochs", "epoch"), "max_epochs"),
    **dict.fromkeys(("batch_size", "batch", "b"), "train_batch_size"),
    **dict.fromkeys(("output_dir", "save_dir", "log_dir", "logdir", "out"), "model_dir"),
    **dict.fromkeys(("data", "data_path", "dataset_dir", "train_dir"), "data_dir"),
    **dict.fromkeys(("model", "network", "architecture"), "arch"),
    **dict.fromkeys(("img_size", "resolution", "input_size"), "image_size"),
    **dict.fromkeys(("resume", "resume_from_checkpoint"), "resume_checkpoint"),
    **dict.fromkeys(("init_from", "initial_weights", "weights_file"), "pretrained_from_file"),
    **dict.fromkeys(("amp", "fp16", "mixed_precision"), "use_amp"),
    **dict.fromkeys(("workers", "j"), "num_workers"),
    **dict.fromkeys(("gpus", "num_gpus", "np"), "nproc"),
}

EXAMPLES = """\
examples:
  python main.py --data_dir /data --model_dir out    train EfficientNet-B0
  python main.py --config configs/digits_b0.yaml     follow a recipe
  python main.py --recipe resnet50/AMP/A100/90E …    one for your machine
  python main.py --mode eval --model_dir out --data_dir /data
  python main.py --mode predict --model_dir out --predict_dir photos/
  python main.py --nproc 8 --use_amp --use_xla …     on eight GPUs
"""

_COMPLETION = "--print_completion"
_NAME, _LONGEST = "NAME", 50
"""What stands for choices that are too many for one line of help, and how long others may be."""


class _HelpFormatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the examples, and leaves out the types, which are in our words."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if _COMPLETION in action.option_strings:
            return f"print a completion script: {', '.join(action.choices or [])}"
        if action.default in (None, argparse.SUPPRESS) or not isinstance(action.type, Kind):
            return text
        value = action.default
        if isinstance(value, bool):
            value = "on" if value else "off"
        return f"{text} (default: {value})"

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, _Switch):
            return ", ".join(action.option_strings)
        if _COMPLETION in action.option_strings:  # jsonargparse's, with all choices in one word
            return f"{_COMPLETION} {_NAME}"
        return super()._format_action_invocation(action)


class _Recipe(argparse.Action):
    """`--config FILE`: each of its settings as if it were given there."""

    def __call__(
        self, parser: Any, namespace: Any, value: Any, option_string: str | None = None
    ) -> None:
        settings = recipe_settings(value)
        parser.file, parser.written = value, settings
        for name, setting in settings.items():
            setattr(namespace, name, setting)


def recipe_settings(path: str) -> dict[str, Any]:
    try:
        return read_recipe(expand_home(path, "--config")).settings
    except PlaceError as error:
        raise ConfigError(str(error)) from error


class _Switch(argparse.Action):
    """`--flag`, `--flag=yes`, `--no-flag`."""

    def __init__(self, option_strings: Sequence[str], **settings: Any) -> None:
        no = [f"--no-{option.removeprefix('--')}" for option in option_strings]
        super().__init__([*option_strings, *no], nargs="?", **settings)

    def __call__(
        self, parser: Any, namespace: Any, value: Any, option_string: str | None = None
    ) -> None:
        wanted = True if value is None else value
        turned = bool(option_string and option_string.startswith("--no-"))
        setattr(namespace, self.dest, wanted != turned)


class Parser(ArgumentParser):
    """jsonargparse's parser, whose errors name the flag that was probably meant.

    Attributes:
        file, written: the last `--config`, and its settings.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.file, self.written = "", {}

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        unknown = re.search(r"unrecognized arguments: (\S+)", message)
        if unknown:
            message = self._unknown(unknown.group(1).split("=")[0])
        else:
            message = re.sub(r'Parser key "([^"]+)":\s*', r"--\1 ", message)
            message = re.sub(r"argument (--\w+)\S*: expected .*", r"\1 needs a value", message)
            message = re.sub(r"argument (--\w+)\S*:", r"\1", message)
            message = " ".join(message.split())
        refuse(message)

    def _unknown(self, written: str) -> str:
        word = written.lstrip("-").replace("-", "_")
        if written in (*MODES, *MODE_ALIASES):
            return f"{written} is a mode: --mode {written}"
        names = [option[2:] for action in self._actions for option in action.option_strings]
        near = difflib.get_close_matches(written.lstrip("-"), names, n=1, cutoff=0.5)
        meant = ELSEWHERE.get(word, near[0] if near else "")
        dashes = "--" if written.startswith("-") else ""
        hint = f"did you mean {dashes}{meant}?" if meant else "--help lists all"
        return f"there is no flag {written}; {hint}"


def refuse(message: str) -> NoReturn:
    print(for_reader(f"convoy: {message}", sys.stderr), file=sys.stderr)
    sys.exit(2)


def build_parser() -> Parser:
    """The parser of `main.py`: one option per field of `Config`, in its groups."""
    set_parsing_settings(add_print_completion_argument=True)
    parser = Parser(
        formatter_class=_HelpFormatter,
        prog="convoy",
        usage="convoy [--config RECIPE.yaml] [--mode MODE] [--flag VALUE …]",
        description="Trains, evaluates and applies image classifiers.",
        epilog=EXAMPLES,
        allow_abbrev=False,
        print_config=None,  # ours is after everything is settled
    )
    suppressed = {"default": argparse.SUPPRESS, "dest": "config"}
    text = "YAML recipe; flags override what it sets"
    parser.add_argument("--config", action=_Recipe, metavar="FILE", help=text, **suppressed)
    text = "print the settings that all of this comes to, as YAML, and do nothing else"
    parser.add_argument("--print_config", action="store_true", help=text, default=False)
    groups: dict[str, Any] = {}
    for f in fields(Config):
        name, kind = f.metadata["group"], kinds()[f.name]
        group = groups.setdefault(name, None) or parser.add_argument_group(name)
        groups[name] = group
        options = [f"--{f.name}", *(f"--{alias}" for alias in f.metadata["aliases"])]
        settings: dict[str, Any] = {"default": f.default, "help": f.metadata["help"], "type": kind}
        if kind.types == (bool,):
            settings["action"] = _Switch
        elif kind.types == (list[str],):  # as the shell gives them: a b c
            element = Kind(f.name, (str,), path=kind.path)
            settings |= {"nargs": "+", "metavar": "DIR", "type": element}
        else:
            settings["metavar"] = _metavar(kind)
            if kind.choices and settings["metavar"] == _NAME:
                settings["help"] += f": {', '.join(kind.choices)}"
        group.add_argument(*options, **settings)
    return parser


def _metavar(kind: Kind) -> str:
    """What stands behind a flag in --help."""
    if kind.choices:
        text = "{" + ",".join(kind.choices) + "}"
        return text if len(text) <= _LONGEST else _NAME
    if kind.is_list:
        element = "X" if kind.types[0] == list[float] else "X|Nsteps|P%"
        return "X|[X,…]" if float in kind.types else f"[{element},…]"
    if kind.types == (float, str):
        return "X|Nsteps|P%"
    if kind.path:
        return "PATH"
    return {int: "N", float: "X", str: "TEXT"}[kind.types[0]]
