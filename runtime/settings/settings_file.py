"""Reads YAML files of settings: recipes, and the `config.yaml` of a run. No TensorFlow.

Scalars stay text until the type of their flag is known: `off`, `2023` and `2024-01-01` are texts
for a text flag, and `010` is ten. YAML itself would read False, numbers, a date, and eight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from convoy.utils.errors import ConfigError
from convoy.utils.files import path_of, size_of
from convoy.utils.text import read_text

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LARGEST = 2**20
"""Largest size of a settings file in bytes; ours have 5 KB."""
_TAG = "tag:yaml.org,2002:"
_KINDS = ("str", "int", "float", "bool", "null", "timestamp", "seq", "map", "merge", "value")
_NULLS = ("", "~", "null", "Null", "NULL")
_LIKE = "settings, which are lines such as `arch: resnet50`"


@dataclass(frozen=True)
class Setting:
    """One setting in a file.

    Attributes:
        value: text, None (null), or a list of these; YAML's own value if the key was requested as
            data.
        line: line number, from 1.
    """

    value: Any
    line: int


def read_settings(
    path: Any, data: tuple[str, ...] = (), like: str = _LIKE, any_name: bool = False
) -> Mapping[str, Setting]:
    """Reads a file's settings, by name and in the file's order.

    Args:
        path: a file, or a URL's `Remote`.
        data: keys that are not settings and may hold any YAML.
        like: description of the expected content, for errors.
        any_name: accept names that look like numbers or `yes`, as class names may.

    Raises:
        ConfigError: it is not a YAML file of settings, or sets a name twice.
        OSError: it cannot be read.
    """
    if (size := size_of(path_of(path))) > _LARGEST:
        raise ConfigError(f"{path} has {size:,} bytes and cannot be a file of settings")
    loader = _Loader(read_text(path))
    try:
        root = loader.get_single_node()
        if root is None:
            return {}
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(f"{path} holds no {like}")
        return _settings(path, loader, root, data, any_name)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_not_yaml(path, error)) from error
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{path} cannot be read as YAML: {' '.join(str(error).split())}"
        ) from error
    except RecursionError as error:
        raise ConfigError(f"{path} is nested too deeply to be a file of settings") from error
    finally:
        loader.dispose()


def _settings(
    path: Any, loader: Any, root: yaml.MappingNode, data: tuple[str, ...], any_name: bool
) -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    for key, value in root.value:
        line = key.start_mark.line + 1
        named = any_name or key.tag in (f"{_TAG}str", f"{_TAG}merge")
        if not isinstance(key, yaml.ScalarNode) or not named:
            written = key.value if isinstance(key, yaml.ScalarNode) else "a list or more settings"
            raise ConfigError(
                f"{path}, line {line}: a setting's name must be a word, not {written}"
            )
        if key.value in found:
            raise ConfigError(
                f"{path}, line {line}: {key.value} is set twice, first in line"
                f" {found[key.value].line}: keep one of them"
            )
        plain = key.value in data
        found[key.value] = Setting(
            loader.construct_object(value, deep=True) if plain else _as_written(path, key, value),
            line,
        )
    return found


def _as_written(path: Any, key: yaml.ScalarNode, node: yaml.Node, within: bool = False) -> Any:
    """Returns a node's text, or a list of texts."""
    where = f"{path}, line {node.start_mark.line + 1}: {key.value}"
    if node.tag.removeprefix(_TAG) not in _KINDS:
        tag = f"!!{node.tag.removeprefix(_TAG)}" if node.tag.startswith(_TAG) else node.tag
        raise ConfigError(f"{where} has the tag {tag}, which settings do not need: leave it out")
    if isinstance(node, yaml.ScalarNode):
        null = not node.style and node.value in _NULLS
        return None if null else node.value
    if isinstance(node, yaml.SequenceNode) and not within:
        return [_as_written(path, key, part, within=True) for part in node.value]
    what = "a list in a list" if isinstance(node, yaml.SequenceNode) else "nested settings"
    raise ConfigError(f"{where} holds {what}, but takes one value or a list of values")


def _not_yaml(path: Any, error: yaml.MarkedYAMLError) -> str:
    """Describes an error in one line, with its place and usual cause."""
    mark = error.problem_mark or error.context_mark
    line = f", line {mark.line + 1}" if mark else ""
    problem = " ".join(filter(None, (error.context, error.problem)))
    if "'\\t'" in problem or "found character that cannot start any token" in problem:
        problem += " (YAML is indented with spaces, not with tabs)"
    return f"{path}{line} cannot be read as YAML: {problem}"
