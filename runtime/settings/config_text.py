"""Writes the text of a `config.yaml`: one setting a line, in groups, first those changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

import yaml

_HEAD = """\
# Settings of a run. `--config` reads this file; flags override it.
"""
_FIRST = """
# ==== Different from the defaults of {arch} ====
"""
_REST = """
# ==== Defaults ====
"""
_PLACE = """
# Relative paths start from this folder.
"""


class _Dumper(yaml.SafeDumper):
    """Writes every value in one line.

    libyaml's dumper, which is written in C, cannot write names that are not UTF-8.
    """


def _list(dumper: Any, value: list[Any]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)


def _text(dumper: Any, value: str) -> yaml.Node:
    style = '"' if "\n" in value else None  # other styles would need several lines
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(list, _list)
_Dumper.add_representer(str, _text)


def config_text(
    values: Mapping[str, Any],
    groups: Mapping[str, str],
    usual: Mapping[str, Any],
    place: Mapping[str, str],
) -> str:
    """Returns the text of a `config.yaml`.

    Args:
        values: every setting's value by name, in the order of writing.
        groups: every setting's group, by name.
        usual: the defaults of the run's architecture. The architecture itself is always listed with
            the changed settings.
        place: the key and folder that say where the run was made, or {}.
    """
    first = [n for n, value in values.items() if n == "arch" or value != usual.get(n)]
    rest = [name for name in values if name not in first]
    lines = _lines({**values, **place})
    text = _HEAD
    text += "".join(_PLACE + lines[name] for name in place)
    text += _FIRST.format(arch=values["arch"]) + _in_groups(first, groups, lines)
    return text + _REST + _in_groups(rest, groups, lines)


def _lines(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns each setting's line, with its line end, by name."""
    text = yaml.dump(
        dict(values), Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=2**30
    )
    return dict(zip(values, text.splitlines(keepends=True), strict=True))


def _in_groups(names: Iterable[str], groups: Mapping[str, str], lines: Mapping[str, str]) -> str:
    return "".join(
        f"\n# {group}\n" + "".join(lines[name] for name in members)
        for group, members in groupby(names, key=lambda name: groups[name])
    )
