"""From the command line to a `Config`.

Parsing, YAML and shell completion are jsonargparse's; the flags are `runtime.config.Config`'s. Two
passes are made, because the architecture and `--recipe` decide defaults: the first finds them, the
second does the rest. Each overrides what stands before it: the family's defaults, the recipe's
file, the settings of the run whose checkpoint is applied, the recipe's machine and mode,
`--config`, flags.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from typing import Any, NoReturn, get_type_hints

import yaml
from jsonargparse import ActionYesNo, ArgumentParser, DefaultHelpFormatter, set_parsing_settings

from convoy.runtime.config import MODE_ALIASES, MODES, Config, ConfigError, defaults, load_config
from convoy.runtime.recipes import Launch, lookup, parse_name, read_recipe
from convoy.runtime.validate import APPLYING_MODES, validate
from convoy.utils.distributed import launched_processes

# Modes that apply a trained model take their defaults from its run, except for what belongs to
# one launch.
NOT_INHERITED = {
    *(
        "mode",
        "model_dir",
        "checkpoint",
        "weights",
        "resume_checkpoint",
        "pretrained_from_file",
        "run_epochs",
        "nproc",
    ),
    *(
        "prof",
        "predict_dir",
        "image",
        "overwrite",
        "output",
        "runs",
        "data_backend",
        "data_format",
        "use_dali",
        "use_dali_eval",
        "intraop_threads",
        "interop_threads",
        "verbose",
    ),
}

# What stands behind a flag in --help; choices stand for themselves.
_METAVARS = {
    **dict.fromkeys((int, int | None), "N"),
    **dict.fromkeys((float, float | None), "X"),
    **dict.fromkeys((str, str | None), "TEXT"),
    list[float] | None: "[X,…]",
    list[float] | float | None: "X|[X,…]",
    float | str: "X|Nsteps|P%",
    list[float | str] | None: "[X|Nsteps|P%,…]",
}

EXAMPLES = """\
examples:
  python main.py --data_dir /data --model_dir out            train and evaluate EfficientNet-B0
  python main.py --config configs/digits_b0.yaml             follow a recipe; flags override it
  python main.py --recipe resnet50/AMP/A100/90E …            one that fits your machine
  python main.py --mode eval --model_dir out --data_dir /data
  python main.py --mode predict --model_dir out --predict_dir photos/
  python main.py --nproc 8 --use_amp --use_xla …             on eight GPUs
"""


class _HelpFormatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the examples."""


class _Parser(ArgumentParser):
    """jsonargparse's parser, whose errors name the flag that was probably meant, and whose
    `--config` files may have a `base`.

    Attributes:
        raising: raise errors as `ConfigError`, instead of printing them and leaving with code 2.
    """

    raising = False

    def parse_path(self, path: Any, *args: Any, **options: Any) -> Any:
        try:
            settings = read_recipe(str(path)).settings
        except ConfigError as error:
            self.error(f"--config: {error}")
        return self.parse_string(yaml.safe_dump(settings), *args, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        unknown = re.search(
            r"unrecognized arguments: (\S+)|Option '([^']+)' is not accepted", message, re.I
        )
        if unknown:
            written = (unknown.group(1) or unknown.group(2)).split("=")[0]
            names = [
                option.lstrip("-") for action in self._actions for option in action.option_strings
            ]
            near = difflib.get_close_matches(written.lstrip("-"), names, n=1, cutoff=0.5)
            dash = "--" if unknown.group(1) and written.startswith("-") else ""
            kind = "flag" if unknown.group(1) else "setting"
            hint = f"; did you mean {dash}{near[0]}?" if near else "; --help lists all"
            message = f"there is no {kind} {written}{hint}"
        else:
            message = re.sub(r'Parser key "([^"]+)":\s*', r"--\1: ", message)
            message = " ".join(message.replace("typing.", "").split())
        if self.raising:
            raise ConfigError(message)
        sys.stderr.write(
            "\n".join(textwrap.wrap(f"convoy: {message}", 100, break_on_hyphens=False)) + "\n"
        )
        sys.exit(2)


def build_parser() -> ArgumentParser:
    """The parser of `main.py`: one option per field of `Config`, in its groups."""
    set_parsing_settings(add_print_completion_argument=True)
    parser = _Parser(
        formatter_class=_HelpFormatter,
        prog="convoy",
        usage="convoy [--config RECIPE.yaml] [--mode MODE] [--flag VALUE …]",
        description="Trains, evaluates and applies image classifiers.",
        epilog=EXAMPLES,
        allow_abbrev=False,
        add_help=True,
    )
    parser.add_argument(
        "--config", action="config", help="YAML recipe; flags override what it sets"
    )
    hints = get_type_hints(Config)
    groups: dict[str, Any] = {}
    for f in fields(Config):
        name = f.metadata["group"]
        group = groups.setdefault(name, None) or parser.add_argument_group(name)
        groups[name] = group
        options = [f"--{f.name}", *(f"--{alias}" for alias in f.metadata["aliases"])]
        if hints[f.name] is bool:
            action = ActionYesNo(yes_prefix="", no_prefix="no-")
            group.add_argument(
                *options,
                action=action,
                nargs="?",
                default=f.default,
                help=f.metadata["help"],
            )
        else:
            several = hints[f.name] == list[str] | None  # as the shell gives them: a b c
            group.add_argument(
                *options,
                type=str if several else hints[f.name],
                nargs="+" if several else None,
                default=f.default,
                help=f.metadata["help"],
                metavar="DIR" if several else _METAVARS.get(hints[f.name]),
            )
    return parser


def parse(argv: Sequence[str] | None = None) -> Config:
    """Parses and checks the command line. Exits with code 2 and one message when something is
    wrong.
    """
    parser = build_parser()
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        return _settle(parser, lambda: parser.parse_args(args))
    except ConfigError as error:
        parser.error(str(error))


def configure(config: str | os.PathLike | None = None, **settings: Any) -> Config:
    """The settings of one run, settled and checked as the command line does it: an architecture's
    defaults, `recipe`, and in modes that apply a checkpoint the settings of its run.

    Args:
        config: a YAML recipe, as `--config`; the settings override it.
        **settings: flags by name, such as `arch="resnet50"`; see `runtime.config.Config`.

    Raises:
        ConfigError: with one sentence that names the flag.

    Example:
        >>> configure(mode="summary", arch="resnet50").weight_decay
        0.0001
    """
    parser = build_parser()
    parser.raising = True
    given = read_recipe(os.fspath(config)).settings if config is not None else {}
    paths = {n: os.fspath(v) for n, v in settings.items() if isinstance(v, os.PathLike)}
    given = given | settings | paths
    return _settle(parser, lambda: parser.parse_object(given))


def _settle(parser: ArgumentParser, read: Callable[[], Any]) -> Config:
    """From what `read` finds over the parser's defaults, which change from pass to pass."""
    first = read()
    recipe, launch = {}, {}
    if first.recipe:
        found = _launch(first.recipe, first.nproc)
        recipe, launch = found.recipe.settings, found.launch | {"recipe": found.name}
        parser.set_defaults(recipe | launch)
        first = read()
    run = _settings_of_run(_mode(first.mode), first)
    parser.set_defaults(defaults(first.arch) | recipe | run | launch)
    values = read().as_dict()
    values.pop("config", None)
    values["recipe"] = launch.get("recipe", values["recipe"])  # its full name
    return validate(Config(**(values | {"mode": _mode(values["mode"])})))


def _mode(written: str) -> str:
    mode = MODE_ALIASES.get(written, written)
    if mode not in MODES:
        near = difflib.get_close_matches(mode, MODES, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(MODES)}"
        raise ConfigError(f"--mode {written} does not exist; {hint}")
    return mode


def _launch(recipe: str, nproc: int | None) -> Launch:
    """What `--recipe` means for the processes that were started, or will be."""
    parts, started = parse_name(recipe), nproc or launched_processes()
    if parts.setdefault("gpus", started) != started:
        raise ConfigError(
            f"--recipe {recipe} is for {parts['gpus']} processes, and {started} were started: use"
            f" --nproc {parts['gpus']}, or leave {parts['gpus']}x out to keep the batch"
        )
    return lookup(**parts)


def _settings_of_run(mode: str, first: Any) -> dict[str, Any]:
    """What a finished run was trained with: the defaults of the modes that apply its checkpoint.

    So `--mode eval` and `--mode predict` need neither the architecture nor the evaluation crop
    spelt out again.
    """
    if mode == "report":
        return _settings_of_report(first)
    if mode not in APPLYING_MODES:
        return {}
    from convoy.runtime.checkpoint import CheckpointError, folder_of, resolve

    file = first.pretrained_from_file
    try:
        path = folder_of(file) if file else resolve(first.model_dir, first.checkpoint)
    except CheckpointError:
        return {}  # `validate` answers for the modes that cannot do without
    if path is None:
        return _settings_of_file(first)
    return _inherited(load_config(path / "config.yaml"))


def _settings_of_file(first: Any) -> dict[str, Any]:
    """Those that go with a weight file of any kind, as far as it says so."""
    from convoy.model.weight_origin import how_applied

    said = how_applied(first.pretrained_from_file)
    if first.crop_padding != Config.crop_padding:
        said.pop("crop_pct", None)  # which would replace the padding that was asked for
    return {name: value for name, value in said.items() if name != "class_names"}


def _settings_of_report(first: Any) -> dict[str, Any]:
    """Those of the run's folder: a report needs no checkpoint."""
    from convoy.utils.files import path_of

    try:
        return _inherited(load_config(path_of(first.model_dir) / "config.yaml"))
    except ConfigError:
        return {}  # `validate` answers


def _inherited(config: Config) -> dict[str, Any]:
    return {name: value for name, value in asdict(config).items() if name not in NOT_INHERITED}
