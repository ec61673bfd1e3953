"""Builds the command line's parser: one option for each field of `Config`.

jsonargparse does the parsing and shell completion; `Kind` reads the values.
"""

from __future__ import annotations

import argparse
import functools
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, DefaultHelpFormatter, set_parsing_settings

from convoy.runtime.command_line.help import metavar, page
from convoy.runtime.command_line.translation import unknown_flag
from convoy.runtime.settings.config import Config, kinds
from convoy.runtime.settings.recipes import read_recipe
from convoy.runtime.settings.values import Kind
from convoy.utils.errors import ConfigError
from convoy.utils.places import PlaceError, expand_home
from convoy.utils.text import tell


class _CompletionFormatter(DefaultHelpFormatter):
    """Leaves types and defaults out of completion scripts, which show a text in one line."""

    def _get_help_string(self, action: argparse.Action) -> str:
        return action.help or ""


class _Recipe(argparse.Action):
    """Handles `--config FILE`: sets the file's settings that no flag has set."""

    def __call__(
        self, parser: Any, namespace: Any, value: Any, option_string: str | None = None
    ) -> None:
        settings = recipe_settings(value)
        flags = (
            vars(namespace).keys() - parser.written.keys()
        )  # these override, before or after --config
        parser.file, parser.written = value, settings
        for name in settings.keys() - flags:
            setattr(namespace, name, settings[name])


def recipe_settings(path: str) -> dict[str, Any]:
    """Reads a recipe's settings; ConfigError also for a path that cannot be expanded."""
    try:
        return read_recipe(expand_home(path, "--config")).settings
    except PlaceError as error:
        raise ConfigError(str(error)) from error


class _Switch(argparse.Action):
    """Handles `--flag`, `--flag=yes` and `--no-flag`."""

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
    """jsonargparse's parser, with errors that name the flag that the user probably meant.

    Attributes:
        file: the last `--config`.
        written: the settings in that file.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.file = ""
        self.written: dict[str, Any] = {}

    def flags(self, args: Sequence[str]) -> dict[str, Any]:
        """Parses a command line; returns what it and its recipe set, by name."""
        self.file, self.written = "", {}
        return self.parse_args(list(args), env=False, defaults=False).as_dict()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints jsonargparse's message in our words, and exits with code 2."""
        unknown = re.search(r"unrecognized arguments: (\S+)", message)
        if unknown:
            message = unknown_flag(unknown.group(1).split("=")[0])
        else:
            message = re.sub(r'Parser key "([^"]+)":\s*', r"--\1 ", message)
            message = re.sub(r"argument (--\w+)\S*: expected .*", r"\1 needs a value", message)
            message = re.sub(r"argument (--\w+)\S*:", r"\1", message)
            message = " ".join(message.split())
        refuse(message)

    def format_help(self, formatter: Any = None) -> str:
        """Returns the help on all flags."""
        return page("all")


def refuse(message: str) -> NoReturn:
    """Prints a message and exits with code 2."""
    tell(f"convoy: {message}")
    sys.exit(2)


@functools.cache
def build_parser() -> Parser:
    """Builds the parser of `main.py`: one option per field of `Config`, in its groups.

    It takes 45 ms, so all command lines of a process share one.
    """
    set_parsing_settings(add_print_completion_argument=True)
    parser = Parser(
        formatter_class=_CompletionFormatter,
        prog="convoy",
        allow_abbrev=False,
        print_config=None,  # ours prints settled settings
    )
    parser.add_argument(
        "--config",
        action=_Recipe,
        metavar="FILE",
        help="YAML recipe; flags override what it sets",
        default=argparse.SUPPRESS,
        dest="config",
    )
    text = "print the resulting settings as YAML, and exit"
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
        elif kind.types == (list[str],):  # separate words: a b c
            element = Kind(f.name, (str,), path=kind.path)
            settings |= {"nargs": "+", "metavar": "DIR", "type": element}
        else:
            settings["metavar"] = metavar(kind)
        group.add_argument(*options, **settings)
    return parser
