"""Lists the evaluations that a report compares: checkpoints × weights × image sizes.

No TensorFlow: settings that do not fit are rejected before anything is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from convoy.runtime.run_folder.checkpoint import CheckpointError
from convoy.runtime.run_folder.which_checkpoint import folder_of, resolve
from convoy.runtime.settings.config import Config, defaults, load_config
from convoy.runtime.settings.flag_facts import of_evaluation
from convoy.runtime.settings.modes import AVERAGE
from convoy.utils.errors import ConfigError
from convoy.utils.files import path_of
from convoy.utils.optional import known

MOST = 8
"""Maximum number of evaluations in a report, limited by the colours."""


@dataclass
class Variant:
    """One evaluation of a report.

    Attributes:
        name: name that distinguishes it from the others, such as "ema, 288 px".
        config: config of a `--mode eval` for only this variant.
    """

    name: str
    config: Config


def check_report(config: Config) -> None:
    """Rejects report flags that do not fit; reads no checkpoint.

    Raises:
        ConfigError: the message has the flag's name.
    """
    from convoy.utils.pages.plots import check_plots

    if not config.report:
        for flag in ("report_dir", "report_checkpoints", "report_image_sizes", "eval_labels"):
            if getattr(config, flag) is not None:
                raise ConfigError(f"--{flag} has no effect without --mode eval --report")
        if config.weights == "both":
            raise ConfigError("--weights both is for --mode eval --report: choose raw or ema")
        return
    if config.mode != "eval":
        raise ConfigError(f"--report is for --mode eval, not for --mode {config.mode}")
    if config.data_backend == "synthetic":
        raise ConfigError("--report needs images, and --data_backend synthetic makes them up")
    check_plots("--report")
    if config.eval_labels:
        from convoy.runtime.evaluate.relabel import read_label_file

        read_label_file(config.eval_labels)


def variants(config: Config) -> list[Variant]:
    """Returns the evaluations that the flags ask for, at least one.

    The flags are `--report_checkpoints`, `--weights` and `--report_image_sizes`.

    Raises:
        ConfigError: there are too many, or a size does not fit.
        CheckpointError: a checkpoint is missing.
    """
    from convoy.runtime.settings.model_checks import (  # that module checks reports with this one
        check_model,
        settle_crop,
    )

    weights = ["raw", "ema"] if config.weights == "both" else [config.weights]
    sizes: Sequence[int | None] = _sizes(config) or [None]
    found = []
    for name, base in _bases(config):
        for kind in weights:
            for size in sizes:
                one = base.with_(weights=kind)
                parts = [name, kind if len(weights) > 1 else ""]
                if size is not None:
                    one = one.with_(image_size=size)
                    parts.append(f"{size} px")
                check_model(one)
                found.append(Variant(", ".join(filter(None, parts)), settle_crop(one)))
    if len(found) > MOST:
        raise ConfigError(
            f"{len(found)} evaluations side by side are more than the {MOST} that fit into a"
            " report: give fewer --report_checkpoints or --report_image_sizes, or not --weights"
            " both"
        )
    return found


def _sizes(config: Config) -> list[int]:
    from convoy.model.catalog import check_image_size, get_arch

    text = config.report_image_sizes
    if text is None:
        return []
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts):
        raise ConfigError(f"--report_image_sizes {text}: give pixels a side, such as 224,288")
    sizes = [int(part) for part in parts]
    if len(set(sizes)) < len(sizes):
        raise ConfigError(f"--report_image_sizes {text} names a size twice")
    for size in sizes:
        try:
            check_image_size(get_arch(config.arch), size)
        except ValueError as error:
            raise ConfigError(f"--report_image_sizes {text}: {error}") from error
    return sizes


def _bases(config: Config) -> list[tuple[str, Config]]:
    """Returns by name in the report the first model, and each of `--report_checkpoints`.

    Each has its own run's settings, except where a flag replaced those of the first.
    """
    if config.report_checkpoints is None:
        return [("", config)]
    wanted = [part.strip() for part in config.report_checkpoints.split(",") if part.strip()]
    file = config.pretrained_from_file
    start = path_of(file) if file else _resolve(config, config.checkpoint)
    paths = [start, *(_resolve(config, which) for which in wanted)]
    places = [path.resolve() if isinstance(path, Path) else path for path in paths]
    if not wanted or len(set(places)) < len(places):
        what = f"--pretrained_from_file {file}" if file else f"--checkpoint {config.checkpoint}"
        twice = next((f", not {p} twice" for p in places if places.count(p) > 1), "")
        raise ConfigError(
            f"--report_checkpoints {config.report_checkpoints}: name checkpoints beside {what},"
            f" each once{twice}: last, folders checkpoints/step-…, or other runs' folders"
        )
    first = _settings(folder_of(start)) or defaults(config.arch)
    kept = {name for name in of_evaluation() if getattr(config, name) != first[name]}
    configs = [config]
    for path in paths[1:]:
        own = {k: v for k, v in _settings(path).items() if k in of_evaluation() and k not in kept}
        own |= {"checkpoint": str(path), "pretrained_from_file": None}
        configs.append(config.with_(**own))
    return list(zip(_labels([file or config.checkpoint, *wanted]), configs, strict=True))


def _resolve(config: Config, which: str) -> Any:
    """Returns the checkpoint: best, last, a checkpoint's folder, or the best in a run's folder."""
    try:
        if which not in ("best", "last") and (path_of(which) / "checkpoints").is_dir():
            return resolve(which)
        return resolve(config.model_dir, which)
    except CheckpointError as error:
        raise ConfigError(str(error).replace("--checkpoint ", "--report_checkpoints ")) from error


def _settings(path: Any) -> dict[str, Any]:
    if path is None:
        return {}
    settings = load_config(path / "config.yaml")
    return {name: getattr(settings, name) for name in of_evaluation()}


def _labels(which: list[str]) -> list[str]:
    """Returns names for the report: the ends of paths, as long as they need to differ."""
    parts = [one.rstrip("/").replace("/checkpoints/", "/").split("/") for one in which]
    for length in range(2, max(map(len, parts)) + 1):
        ends = ["/".join(part[-length:]) for part in parts]
        if len(set(ends)) == len(ends):
            return ends
    return which


def check_fit(asked: list[Variant]) -> None:
    """Rejects variants that do not fit each other, before any is evaluated.

    It goes by the checkpoints' files.

    Raises:
        ConfigError: a model has different classes from the first.
        CheckpointError: a requested moving average is missing.
        WeightFileError: `--pretrained_from_file` cannot be read, or has no moving average.
    """
    first: _Facts | None = None
    seen = set()
    for config in (variant.config for variant in asked):
        which = (config.pretrained_from_file, config.checkpoint, config.weights)
        if which in seen:
            continue
        seen.add(which)
        found = _facts(config)
        first = first or found
        if config.weights == "ema" and not found.ema:
            raise CheckpointError(
                f"{found.text} holds no moving average (it was trained with"
                " --moving_average_decay 0): give --weights raw"
            )
        if found.classes != first.classes:
            raise ConfigError(
                f"--report_checkpoints: {found.text} has {found.classes} classes, and {first.text}"
                f" {first.classes}"
            )
        if found.names and first.names and not config.label_file and found.names != first.names:
            pairs = enumerate(zip_longest(first.names, found.names))
            number, (one, other) = next((i, two) for i, two in pairs if two[0] != two[1])
            raise ConfigError(
                f"--report_checkpoints: class {number} of {found.text} is {other!r}, and of"
                f" {first.text} {one!r}; if they mean the same, give all names by --label_file"
            )


class _Facts(NamedTuple):
    """Facts about a model before it is built: its location, its classes, whether it has an EMA."""

    text: str
    classes: int | None
    names: list[str] | None
    ema: bool


def _facts(config: Config) -> _Facts:
    file = config.pretrained_from_file
    path = folder_of(file) if file else resolve(config.model_dir, config.checkpoint)
    if path is None:
        return _facts_of_file(config, known(file))
    try:
        state = json.loads((path / "state.json").read_text())
        classes = state["model"]["num_classes"]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read: {error}") from error
    ema = (path / "ema.safetensors").exists()
    return _Facts(str(path), classes, state.get("class_names"), ema)


def _facts_of_file(config: Config, file: str) -> _Facts:
    from convoy.model.weights import inspect
    from convoy.model.weights.origin import how_applied

    ema = AVERAGE[config.weights]
    partial = config.pretrained_partial
    found = inspect(file, config.arch, padding=config.padding, ema=ema, partial=partial)
    names = how_applied(file).get("class_names")
    return _Facts(file, found.num_classes, names, found.has_ema)
