"""Writes `--help`: the usual flags on one page, others by group, flag or word.

It loads no large library, so it appears at once. The texts come from `runtime.settings.config`.
"""

from __future__ import annotations

import difflib
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from convoy.runtime.fitted.rules import CHOSEN
from convoy.runtime.settings.config import Config, kinds, spellings
from convoy.runtime.settings.defaults_by_family import FAMILY_DEFAULTS
from convoy.runtime.settings.flags import RANGES
from convoy.runtime.settings.modes import ALL_MODES, MODES
from convoy.runtime.settings.other_names import NEAR, SAME
from convoy.runtime.settings.values import Kind
from convoy.utils.errors import ConfigError

WIDTH, COLUMN = 79, 26
"""Width of a page, for terminals of 80 columns; column where the texts of flags begin."""

# The flags that most runs use, by purpose.
MOST_USED = {
    "the run": (
        *("data_dir", "validation_fraction", "model_dir", "config", "recipe", "resume_checkpoint"),
        "nproc",
    ),
    "the model": ("arch", "image_size", "pretrained", "pretrained_from_file"),
    "training": (
        *("max_epochs", "train_batch_size", "optimizer", "lr_init", "weight_decay"),
        *("augmenter_name", "early_stopping", "use_amp", "use_xla", "num_workers"),
    ),
    "results": ("report", "predict_dir", "image", "export_format", "output"),
}

# Options that are not settings; shown with the group Run.
_OPTIONS = {
    "config": ("--config FILE", "YAML file of settings; flags override it"),
    "print_config": ("--print_config", "print the settings that result, as YAML, and stop"),
    "print_completion": (
        "--print_completion SHELL",
        "print a completion script: shtab-bash, shtab-zsh, shtab-tcsh and others",
    ),
}

_EXAMPLES = """\
examples:
  {program} --data_dir photos --model_dir runs/photos
  {program} eval --model_dir runs/photos
  {program} predict --model_dir runs/photos --predict_dir new_photos
  {program} export --model_dir runs/photos --export_format onnx
  {program} --config runs/photos/config.yaml --resume_checkpoint
  {program} --recipe resnet50/AMP/A100/90E --nproc 8 --data_dir /data
"""


def asked(args: Sequence[str]) -> str | None:
    """Returns the requested topic of help, "" for the first page; None if none is requested."""
    for i, arg in enumerate(args):
        if arg.startswith("--help="):
            return arg.partition("=")[2]
        if arg in ("-h", "--help"):
            following = args[i + 1] if i + 1 < len(args) else "-"
            return "" if following.startswith("-") else following
    return None


def page(topic: str = "") -> str:
    """Returns help on a topic: "", `all`, a group, a mode, a flag, or a word to search for.

    Raises:
        ConfigError: no flag has to do with it.
    """
    word = topic.strip().lstrip("-").replace("-", "_").lower()
    if not word:
        return _first_page()
    if word == "all":
        return "\n".join(_group(name) for name in _groups()) + f"\n{_SWITCHES}"
    if word in ("group", "groups"):
        return _about_groups()
    found = [name for name in _groups() if word in _topics(name)]
    if found and word not in spellings():
        return f"{_group(found[0])}\n{_SWITCHES}"
    if name := spellings().get(SAME.get(word, word)):
        return _flag(_flags()[name])
    return _first_page() if word in MODES else _search(word)


_SWITCHES = "Flags without a value are switches: --use_xla turns on, --no-use_xla turns off.\n"


def _first_page() -> str:
    lines = [
        f"usage: {_program()} [MODE] [--flag VALUE …]",
        "",
        "Trains, evaluates, exports and applies image classifiers.",
        "",
        "modes:",
        *(_line(name, mode.does) for name, mode in MODES.items()),
    ]
    for title, names in MOST_USED.items():
        lines += ["", f"{title}:", *(_described(name) for name in names)]
    groups = ", ".join(_topic(name) for name in _groups())
    lines += [
        "",
        "more help:",
        _line("--help=all", "every flag"),
        _line("--help=GROUP", f"flags of one group: {groups}"),
        _line("--help=FLAG", "one flag, such as --help=lr_init"),
        _line("--help=WORD", "flags about a word, such as --help=crop"),
        "",
        _EXAMPLES.format(program=_program()),
    ]
    return "\n".join(lines)


def _program() -> str:
    return "convoy" if Path(sys.argv[0]).name == "convoy" else "python main.py"


def _flags() -> dict[str, Field[Any]]:
    return {f.name: f for f in fields(Config)}


def _groups() -> list[str]:
    return list(dict.fromkeys(f.metadata["group"] for f in fields(Config)))


def _topic(group: str) -> str:
    """Returns a group's name after `--help=`."""
    return group.lower().split()[0]


def _topics(group: str) -> tuple[str, ...]:
    """Returns all names of a group that `--help=` accepts."""
    words = group.lower().split()
    other = {"optimisation": "optimization", "prediction": "export", "evaluation": "validation"}
    return (*words, *([other[words[0]]] if words[0] in other else []))


def _about_groups() -> str:
    lines = ["groups of flags, shown by --help=GROUP:"]
    for group in _groups():
        names = [f.name for f in fields(Config) if f.metadata["group"] == group]
        lines.append(_line(_topic(group), ", ".join(names[:6]) + (", …" if names[6:] else "")))
    return "\n".join(lines) + "\n"


def _group(group: str) -> str:
    names = [f.name for f in fields(Config) if f.metadata["group"] == group]
    extra = list(_OPTIONS) if group == _groups()[0] else []
    return "\n".join([f"{group}:", *map(_described, [*extra, *names]), ""])


def _described(name: str) -> str:
    """Describes a flag in a line or several: its form, its help and its default."""
    if name in _OPTIONS:
        return _line(*_OPTIONS[name])
    f, kind = _flags()[name], kinds()[name]
    shown, text = _invocation(f, kind), f.metadata["help"]
    if kind.choices and metavar(kind) == NAME:
        text += f" {{{', '.join(kind.choices)}}}"
    default = _default(f)
    return _line(shown, text + (f" (default: {default})" if default else ""))


def _line(left: str, text: str) -> str:
    """Returns lines with a name on the left, and its text in a column on the right."""
    indent = " " * COLUMN
    lines = _wrap(text, indent)
    if len(left) > COLUMN - 4:
        return f"  {left}\n{lines}"
    return f"  {left:{COLUMN - 2}}{lines[COLUMN:]}"


def _wrap(text: str, indent: str) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


NAME, _LONGEST = "NAME", 58
"""Placeholder for choices too long for one line of help, and the longest others."""


def metavar(kind: Kind) -> str:
    """Returns the placeholder for a flag's value."""
    if kind.choices:
        text = "{" + ",".join(kind.choices) + "}"
        return text if len(text) <= _LONGEST else NAME
    if kind.is_list:
        element = "X" if kind.types[0] == list[float] else "X|Nsteps|P%"
        return "X|[X,…]" if float in kind.types else f"[{element},…]"
    if kind.types == (float, str):
        return "X|Nsteps|P%"
    if kind.types == (int, str):
        return "N"
    if kind.path:
        return "PATH"
    return {int: "N", float: "X", str: "TEXT"}[kind.types[0]]


def _invocation(f: Field[Any], kind: Kind) -> str:
    if kind.types == (bool,):
        return f"--{f.name}" + (f", --no-{f.name}" if f.default else "")
    if kind.types == (list[str],):
        return f"--{f.name} PATH …"
    return f"--{f.name} {'NAME' if f.name in ('arch', 'mode', 'recipe') else metavar(kind)}"


def _default(f: Field[Any]) -> str:
    """Describes a flag's default; "" if there is nothing to say."""
    if f.name in CHOSEN:
        return "chosen for the data"
    if f.metadata["unset"]:
        return f.metadata["unset"]
    if any(f.name in values for values in FAMILY_DEFAULTS.values()) or f.name == "interpolation":
        return "the architecture's"
    return _value(f.default)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else ""
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _flag(f: Field[Any]) -> str:
    """Returns the full help on one flag."""
    kind, about = kinds()[f.name], f.metadata
    facts = [about["help"], f"takes: {kind.words()}"]
    if about["within"]:
        facts[-1] += f"; it must {RANGES[about['within']][1]}"
    if default := _default(f):
        facts.append(f"default: {default}")
    if f.name in CHOSEN:
        others = (f"{v[f.name]} for {n}" for n, v in FAMILY_DEFAULTS.items() if f.name in v)
        usual = about["unset"] or _value(f.default)
        facts.append(
            "default from 50,000 images on, or with --defaults documents:"
            f" {', '.join([usual, *others])}"
        )
    if about["modes"] != ALL_MODES:
        facts.append(f"modes: {', '.join(mode for mode in MODES if mode in about['modes'])}")
    if about["aliases"]:
        facts.append("also called: " + ", ".join(f"--{alias}" for alias in about["aliases"]))
    facts.append(f"group: --help={_topic(about['group'])}")
    return "\n".join([_invocation(f, kind), *(_wrap(fact, "    ") for fact in facts)]) + "\n"


def _search(word: str) -> str:
    """Lists the flags whose names or help contain a word."""
    texts = {f.name: f"{f.name} {f.metadata['help'].lower()}" for f in fields(Config)}
    texts["mode"] = "mode"  # its help lists all modes, so it would match any mode's name
    names = [name for name, text in texts.items() if word in text]
    if word in NEAR and NEAR[word] in _flags():
        names = [NEAR[word], *names]
    if names:
        return "\n".join([f"flags about {word}:", *map(_described, names)]) + "\n"
    near = difflib.get_close_matches(word, [*spellings(), *map(_topic, _groups())], n=1)
    hint = f"did you mean --help={near[0]}?" if near else "--help=all lists all"
    raise ConfigError(f"--help={word}: no flag matches; {hint}")
