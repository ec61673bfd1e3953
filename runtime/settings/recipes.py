"""Reads recipes: the settings to train a model with, by machine. Loads no TensorFlow.

A recipe file (`configs/*/*.yaml`) holds settings of `runtime.settings.config.Config`, the results
that its source reports (`expected`), and perhaps the file that it changes (`base`).
`configs/launch.yaml` says which file, batch and precision belong to a model on a platform; `lookup`
merges them.
"""

from __future__ import annotations

import difflib
import functools
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from convoy.runtime.settings.config import MADE_IN, settle
from convoy.runtime.settings.settings_file import read_settings
from convoy.utils.errors import ConfigError
from convoy.utils.places import expand_home
from convoy.utils.tables import table_console
from convoy.utils.text import TextError, tell

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Recipe:
    """A recipe file.

    Attributes:
        path: the file.
        settings: settings by flag name, including inherited ones.
        expected: the results that its source reports.
    """

    path: Path
    settings: dict[str, Any]
    expected: dict[str, Any]


@dataclass(frozen=True)
class Launch:
    """The result of `lookup`.

    Attributes:
        name: full name, such as "resnet50/AMP/DGXA100/convergence/90E", which `lookup` finds again.
        recipe: the recipe file.
        launch: settings of precision, platform, batch and mode, by flag name; they override the
            recipe's.
        gpus: processes to start, one for each GPU.
        images_per_update: images per update over all processes and forward passes.
        published: False if the batch size is derived and untested.
    """

    name: str
    recipe: Recipe
    launch: dict[str, Any]
    gpus: int
    images_per_update: int
    published: bool


def read_recipe(path: str | Path, _children: tuple[Path, ...] = ()) -> Recipe:
    """Reads a recipe and, below its settings, those of its `base` (a path relative to it).

    Raises:
        ConfigError: a file is missing, is not YAML, holds something other than settings, or is its
            own base.
    """
    path = Path(path)
    if path.is_dir():
        hint = f": give {path / 'config.yaml'}" if (path / "config.yaml").is_file() else ""
        raise ConfigError(f"{path} is a folder, and settings are in YAML files{hint}")
    if path.resolve() in _children:
        raise ConfigError(f"the recipe {path} is its own base")
    try:
        found = dict(read_settings(path, data=("expected",)))
    except OSError as error:
        raise ConfigError(f"cannot read the recipe {path}: {error.strerror or error}") from error
    except TextError as error:
        raise ConfigError(str(error)) from error
    base, expected = found.pop("base", None), found.pop("expected", None)
    found.pop(MADE_IN, None)  # ignored: a recipe's paths start from the current folder
    settings = dict(settle(n, s.value, f"{path}, line {s.line}: ") for n, s in found.items())
    if base:
        if not isinstance(base.value, str):
            raise ConfigError(f"{path}, line {base.line}: base takes the path of another recipe")
        asks = f"{path}, line {base.line}: base"
        beside = path.parent / expand_home(base.value, asks)
        if not beside.exists():
            raise ConfigError(f"{asks} {base.value}: there is no file {beside}")
        inherited = read_recipe(beside, (*_children, path.resolve()))
        settings = inherited.settings | settings
    return Recipe(path, settings, expected.value if expected else {})


@functools.cache
def _shipped(file: str) -> Recipe:
    return read_recipe(CONFIGS / file)


@functools.cache
def table() -> dict[str, Any]:
    """Returns `configs/launch.yaml`: precisions, platforms, modes and models. Do not change it."""
    path = CONFIGS / "launch.yaml"
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error}") from error


def lookup(
    model: str,
    precision: str | None = None,
    platform: str | None = None,
    mode: str = "convergence",
    epochs: int | None = None,
    gpus: int | None = None,
) -> Launch:
    """Looks up how to run a model on a platform; names are those of `configs/launch.yaml`.

    Args:
        model: name of the model.
        precision: name of the precision; None: AMP, but FP32 on CPUs.
        platform: name of the machine.
        mode: what to do.
        epochs: length of the recipe; None: the model's longest one.
        gpus: number of processes, if it is not the platform's. With fewer, several passes make up
            the same images per update, or the nearest number; with more, an update has more images.
            The learning rate follows, as the recipe's is per number of images (`lr_base_batch`).

    Raises:
        ConfigError: a name is unknown, the platform lacks the precision, or no recipe has this
            length.
    """
    if platform is None:
        raise ConfigError(f"--recipe needs a platform: {', '.join(table()['platforms'])}")
    precision = precision or ("FP32" if platform == "cpu" else "AMP")
    entry, numbers = _entry("models", model), _entry("precisions", precision)
    machine, doing = _entry("platforms", platform), _entry("modes", mode)
    lacks = machine.get("lacks", {})
    _check_precision(precision, platform, lacks)
    epochs = _length(model, entry, epochs)

    sizes = _sizes(entry, platform, precision, machine["gpus"])
    gpus = doing.get("gpus") or gpus or machine["gpus"]
    step = sizes.train * gpus
    passes = max(1, round(sizes.update / step))
    launch = {
        **numbers["settings"],
        **machine["settings"],
        "train_batch_size": sizes.train,
        "eval_batch_size": sizes.evaluate,
        "optimizer_batch_size": passes * step if passes > 1 else None,
        **doing["settings"],
    }
    return Launch(
        name=f"{model}/{precision}/{platform}/{mode}/{epochs}E",
        recipe=_shipped(entry["recipes"][epochs]),
        launch=launch,
        gpus=gpus,
        images_per_update=launch["optimizer_batch_size"] or step,
        # The documents give no FP32 for machines that have TF32.
        published=platform in entry.get("published", {})
        and (precision != "FP32" or "TF32" in lacks),
    )


def _entry(kind: str, name: str) -> dict[str, Any]:
    if name not in table()[kind]:
        raise ConfigError(_unknown(name))
    return table()[kind][name]


def _check_precision(precision: str, platform: str, lacks: Mapping[str, str]) -> None:
    """Rejects a precision that the platform lacks, for the reason in `lacks`."""
    if precision in lacks:
        others = " or ".join(p for p in table()["precisions"] if p not in lacks)
        raise ConfigError(f"--recipe: {precision} on {platform}: {lacks[precision]}; use {others}")


def _length(model: str, entry: Mapping[str, Any], epochs: int | None) -> int:
    """Returns the recipe's number of epochs: the requested one, or the model's largest."""
    epochs = epochs or max(entry["recipes"])
    if epochs not in entry["recipes"]:
        known = ", ".join(f"{e}E" for e in entry["recipes"])
        raise ConfigError(f"--recipe: {model} has no recipe of {epochs} epochs; it has {known}")
    return epochs


class _Sizes(NamedTuple):
    """Numbers of images: of a process in a training pass, in evaluation; of all in an update."""

    train: int
    evaluate: int
    update: int


def _sizes(entry: Mapping[str, Any], platform: str, precision: str, usual_gpus: int) -> _Sizes:
    """Returns a model's batches on a platform that has `usual_gpus`."""
    row = (entry.get("published", {}) | entry["derived"])[platform]
    memory = "AMP" if precision == "AMP" else "FP32"  # TF32 saves no memory
    update = row.get("update", entry.get("update", row[memory] * usual_gpus))
    return _Sizes(
        train=row[memory],
        evaluate=entry.get("evaluate", {}).get(platform, row)[memory],
        update=update.get(memory, entry["update"]) if isinstance(update, dict) else update,
    )


def parse_name(text: str) -> dict[str, Any]:
    """Returns the arguments of `lookup` from parts in any order, separated by "/", "," or spaces.

    Raises:
        ConfigError: a part is unknown (the text has the nearest name) or contradicts another.
    """
    found: dict[str, Any] = {}
    value: int | str
    for part in filter(None, re.split(r"[/,\s]+", text)):
        if number := re.fullmatch(r"([1-9]\d*)([ex])", part.lower()):
            kind, value = {"e": "epochs", "x": "gpus"}[number[2]], int(number[1])
        elif part.lower() in _names():
            kind, value = _names()[part.lower()]
        else:
            raise ConfigError(_unknown(part))
        if found.setdefault(kind, value) != value:
            raise ConfigError(
                f"--recipe {text} gives two values for {kind}: {found[kind]} and {value}"
            )
    if "model" not in found:
        raise ConfigError(f"--recipe {text} needs a model: {', '.join(table()['models'])}")
    return found


@functools.cache
def _names() -> dict[str, tuple[str, str]]:
    """Maps lower-case names and aliases of all parts to (argument of `lookup`, name)."""
    names: dict[str, tuple[str, str]] = {}
    for kind, entries in table().items():
        for name, entry in entries.items():
            written = (name, *entry.get("aliases", ()))
            names |= dict.fromkeys(map(str.lower, written), (kind.removesuffix("s"), name))
    return names


def _unknown(part: str) -> str:
    near = difflib.get_close_matches(part.lower(), _names(), n=1, cutoff=0.75)
    hint = (
        f"did you mean {_names()[near[0]][1]}" if near else "see `python -m convoy.runtime.recipes`"
    )
    return f"--recipe: unknown part {part}; {hint}"


def expected_top1(arch: str) -> tuple[float, str] | None:
    """Returns the top-1 in percent that an architecture's longest recipe should reach.

    Also returns who reports it; None if there is no recipe.
    """
    if arch not in table()["models"]:
        return None
    recipes = table()["models"][arch]["recipes"]
    expected = _shipped(recipes[max(recipes)]).expected
    return expected["results"][0]["top1"], expected["short"]


_USAGE = """\
Prints recipes: the settings to train a model with, by machine.

  python -m convoy.runtime.recipes                                   all, as a table
  python -m convoy.runtime.recipes resnet50 AMP DGXA100 90E          one, as YAML
  python -m convoy.runtime.recipes resnet50 AMP DGX2V --nproc        processes to start

Train with one: main.py --recipe resnet50/AMP/A100/90E. docs/recipes.md tells more."""


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table, or one choice. Returns the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(args):
        print(_USAGE)
        return 0
    words = [arg for arg in args if arg != "--nproc"]
    if not words:
        return _print_table()
    try:
        found = lookup(**parse_name(" ".join(words)))
    except ConfigError as error:
        tell(f"recipes: {error}")
        return 2
    if "--nproc" in args:
        print(found.gpus)
    else:
        origin = "published" if found.published else "derived from published ones, untested"
        settings = found.recipe.settings | found.launch | {"gpus": found.gpus}
        print(f"# {found.name}: {found.recipe.path.relative_to(CONFIGS.parent)}")
        print(f"# {found.images_per_update} images per update; batch {origin}")
        print(yaml.safe_dump(settings, sort_keys=False), end="")
    return 0


def _print_table() -> int:
    from rich.table import Table

    platforms = list(table()["platforms"])
    for columns in (platforms[:4], platforms[4:]):  # each fits 80 characters
        grid = Table("model", "epochs", *columns, box=None, pad_edge=False)
        for model, entry in table()["models"].items():
            cells = [_batches(model, platform) for platform in columns]
            grid.add_row(model, " ".join(map(str, entry["recipes"])), *cells)
        table_console().print(grid, "")
    print("Images per GPU and pass, AMP/(TF32 or FP32); * is derived and untested.")
    print(f"Modes: {', '.join(table()['modes'])}.")
    return 0


def _batches(model: str, platform: str) -> str:
    amp, full = (lookup(model, precision, platform) for precision in ("AMP", "FP32"))
    sizes = f"{amp.launch['train_batch_size']}/{full.launch['train_batch_size']}"
    return sizes if amp.published else f"{sizes}*"
