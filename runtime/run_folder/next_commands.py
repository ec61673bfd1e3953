"""Formats the commands that a run suggests to its user, for the folder in which it was started."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from convoy.runtime.settings.config import Config
from convoy.utils.distributed import ranks
from convoy.utils.distributed.launched import elastic
from convoy.utils.files import is_url, path_of

WIDTH = 79
_MAIN = Path(__file__).resolve().parents[2] / "main.py"


def command(*words: str, width: int = WIDTH) -> list[str]:
    """Returns shell lines that start Convoy, wrapped to a terminal's width if the words allow it.

    Args:
        *words: flags and their values, without quotes.
        width: longest line in characters.
    """
    # A value stays on its flag's line.
    pieces: list[str] = _program()
    for word in map(shlex.quote, words):
        if word.startswith("--") or pieces[-1].count(" ") or not pieces[-1].startswith("--"):
            pieces.append(word)
        else:
            pieces[-1] += f" {word}"
    lines = [f"  {pieces[0]}"]
    for piece in pieces[1:]:
        if len(lines[-1]) + len(piece) + 3 <= width:
            lines[-1] += f" {piece}"
        else:
            lines[-1] += " \\"
            lines.append(f"      {piece}")
    return lines


def _program() -> list[str]:
    """Returns how the program was started: the installed command, or a checkout's main.py."""
    started = sys.argv[0]
    if Path(started).name == "convoy":
        found = shutil.which("convoy")
        same = found is not None and os.path.abspath(found) == os.path.abspath(started)
        return ["convoy" if same else shlex.quote(started)]
    if not _MAIN.is_file():
        return ["convoy"]
    here = Path.cwd() == _MAIN.parent
    return ["python", "main.py" if here else shlex.quote(str(_MAIN))]


def without(args: Sequence[str], *names: str) -> list[str]:
    """Removes some flags and their values from a command line."""
    kept: list[str] = []
    skips = False
    for word in args:
        flag = word.split("=")[0] in [f"--{name}" for name in names]
        if not flag and not skips:
            kept.append(word)
        skips = flag and "=" not in word
    return kept


def resume_command(config: Config, *more: str) -> list[str]:
    """Returns the command that resumes a run, as lines; empty if its settings do not tell.

    They do not if its launcher is another program, or its folder is a URL.

    Args:
        config: the flags.
        *more: further flags.
    """
    size = ranks.size()
    settings = path_of(config.model_dir) / "config.yaml"
    several_hosts = ranks.local_size() != size
    if elastic() or several_hosts or is_url(config.model_dir) or not settings.exists():
        return []
    processes = ["--nproc", str(size)] if size > 1 else []
    return command("--config", str(settings), "--resume_checkpoint", *processes, *more)


def listed(title: str, commands: Iterable[list[str]]) -> list[str]:
    """Lists commands below a title; nothing if there are none."""
    lines = [line for lines in commands for line in lines]
    return [title, *lines] if lines else []
