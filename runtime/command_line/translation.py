"""Translates names that users of other programs know into ours.

`main.py eval …` becomes `main.py --mode eval …`, `--lr` `--lr_init`, `--data-dir` `--data_dir`.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

from convoy.runtime.settings.config import kinds, spellings
from convoy.runtime.settings.modes import MODE_ALIASES, MODES
from convoy.runtime.settings.other_names import IN_MODE, SAME, meant_by
from convoy.utils.errors import ConfigError
from convoy.utils.text import printable

OPTIONS = ("config", "print_config", "print_completion", "help")
"""Options that are not settings."""


def understand(args: Sequence[str]) -> list[str]:
    """Returns a command line with the mode as a flag, and flags under our names.

    Raises:
        ConfigError: the first word is not a mode, or there are two modes.
    """
    named = _named_mode(args)
    own = [_own(arg, named) for arg in args]
    if not own or own[0].startswith("-"):
        return own
    word, rest = own[0], own[1:]
    if word == "help":
        return ["--help", *rest]
    mode = _mode(word)
    if any(arg.split("=")[0] == "--mode" for arg in rest):
        raise ConfigError(f"{word} is a mode, and --mode names another: give one of them")
    return [*rest, "--mode", mode]  # after --config, whose file may set another mode


def translations(args: Sequence[str]) -> str:
    """Tells the user in one line which names were translated; "" if none were."""
    told, mode = [], _named_mode(args)
    for written in dict.fromkeys(arg.split("=")[0] for arg in args):
        own = _own(written, mode)
        if written.replace("-", "_") != own.replace("-", "_"):
            note = " (for --lr_base_batch images per step)" if own == "--lr_init" else ""
            told.append(f"{written} as {own}{note}")
    return f"convoy: took {', '.join(told)}" if told else ""


def _named_mode(args: Sequence[str]) -> str:
    """Returns the mode that a command line names; "" if it leaves that to a file or the default."""
    named = args[0] if args and not args[0].startswith("-") else ""
    for arg, following in pairwise([*args, ""]):
        if arg.split("=")[0] == "--mode":
            named = arg.partition("=")[2] or following
    return MODE_ALIASES.get(named, named)


def _own(arg: str, mode: str) -> str:
    """Returns a flag under our name in this mode; other words unchanged."""
    if not arg.startswith("--"):
        return arg
    written, equals, value = arg[2:].partition("=")
    no, name = ("no-", written[3:]) if written.startswith(("no-", "no_")) else ("", written)
    if written in _known() or (no and name in _known()):
        return arg
    plain = name.replace("-", "_")
    own = plain if plain in _known() else SAME.get(plain.lower())
    if own != plain:
        own = IN_MODE.get(own or "", {}).get(mode, own)
    if not own or (no and kinds()[own].types != (bool,)):
        return arg
    return f"--{no}{own}{equals}{value}"


@cache
def _known() -> frozenset[str]:
    return frozenset((*spellings(), *OPTIONS))


def _mode(word: str) -> str:
    """Returns the mode that the first word names."""
    if (mode := MODE_ALIASES.get(word, word)) in MODES:
        return mode
    if "/" in word or "." in word or Path(word).exists():
        raise ConfigError(
            f"{printable(word)} is not a mode: for a folder of images to train on, give --data_dir"
            f" {word}; for a recipe, --config {word}; for images to label, --mode predict"
            f" --predict_dir {word}"
        )
    raise ConfigError(unknown_mode(word))


def unknown_mode(written: str) -> str:
    """Returns the message about a mode that does not exist."""
    near = difflib.get_close_matches(written.lower(), (*MODES, *MODE_ALIASES), n=1, cutoff=0.4)
    meant = MODE_ALIASES.get(near[0], near[0]) if near else ""
    return f"there is no mode {printable(written)}; " + (
        f"did you mean {meant}?" if meant else f"choose from {', '.join(MODES)}"
    )


def unknown_flag(written: str) -> str:
    """Returns the message about a flag that does not exist, or a word that belongs to no flag."""
    if written in (*MODES, *MODE_ALIASES):
        return f"{written} is a mode: --mode {written}"
    plain = written.lstrip("-").replace("-", "_").lower()
    meant = f"mode {plain}" if plain in MODES else meant_by(plain, _known())
    dashes = "--" if written.startswith("-") else ""
    hint = f"did you mean {dashes}{meant}?" if meant else "--help=all lists all"
    return f"there is no flag {written}; {hint}"
