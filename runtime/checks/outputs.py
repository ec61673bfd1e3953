"""Checks the places that a mode writes into, before anything is computed. No TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from convoy.dataloader.errors import DataError
from convoy.dataloader.sources.advice import folders_of_classes
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flag_facts import used_in
from convoy.runtime.settings.modes import BENCHMARK_MODES, RUN_MODES, TRAINING_MODES
from convoy.runtime.settings.output_paths import (
    benchmark_stem,
    comparison_page,
    plots_of_page,
)
from convoy.runtime.settings.paths_of_runs import load_run_config
from convoy.utils.distributed.launched import launched_processes
from convoy.utils.errors import ConfigError
from convoy.utils.files import in_folder, is_url, path_of
from convoy.utils.own_files import is_own
from convoy.utils.places import PlaceError, spare_checkpoints

_WRITTEN = ("output", "report_dir", "cache_dir", "xla_cache")
_SETTINGS = "config.yaml"
_OF_A_RUN = {_SETTINGS, "environment.json", "in_use.json", "trackers.json", "report.html"}
_WORDS = {
    "settings": "the settings of a run",
    "log": "the log of a run",
    "page": "a page of an earlier report",
    "evaluation": "the result of an earlier report",
    "benchmark.json": "an earlier benchmark",
    "benchmark.md": "an earlier benchmark",
}


def check_outputs(config: Config) -> None:
    """Rejects places that must not be written, or cannot be.

    Raises:
        ConfigError: the message names the flag.
    """
    written = [name for name in _WRITTEN if name in used_in(config.mode)]
    if config.mode in TRAINING_MODES or config.pretrained_from_file:  # else it only names the run
        written.append("model_dir")
    try:
        for name in written:
            if path := getattr(config, name):
                spare_checkpoints(path, f"--{name}")
        if "log_filename" in used_in(config.mode):
            log = os.path.join(config.model_dir, config.log_filename)
            spare_checkpoints(log, "--log_filename")
    except PlaceError as error:
        raise ConfigError(str(error)) from error
    output = config.output if config.mode == "export" else None
    if output and not is_url(output) and Path(output).is_file():
        raise ConfigError(f"--output {output} is a file, and exports need a folder: name one")
    _spare_classes(config, written)
    _spare_files(config)


def _spare_classes(config: Config, written: Sequence[str]) -> None:
    """Refuses new folders that would be taken for classes of the data, this run's or the model's.

    A file beside a class's images is no harm.

    Args:
        config: the flags.
        written: names of the flags whose places are written.
    """
    made = [
        (f"--{name}", path, folder)
        for name in written
        if (path := getattr(config, name)) and not is_url(path)
        if (folder := _folder_made(config, name, path)) is not None
    ]
    if not made:
        return
    for data_dir in _data_dirs(config):
        with suppress(DataError, OSError):  # the loader tells these
            for folder in folders_of_classes(data_dir):
                real = os.path.realpath(folder)
                for flag, path, place in made:
                    if os.path.commonpath((os.path.realpath(place), real)) == real:
                        raise ConfigError(
                            f"{flag} {path} lies among the class folders in {folder}, where it"
                            f" would be taken for a class: choose another {flag}"
                        )


def _folder_made(config: Config, name: str, path: str) -> str | None:
    """Returns the folder that a mode makes or fills for a flag; None: it only adds files to one."""
    if name != "output" or config.mode == "export":
        return path
    if config.mode == "report":
        return str(plots_of_page(comparison_page(config)))
    folder = os.path.dirname(str(in_folder(path, "any")))
    return None if os.path.isdir(folder or ".") else folder


def _data_dirs(config: Config) -> set[str]:
    """Returns the data that the mode reads, and those that its model was trained on."""
    found = {config.data_dir} if "data_dir" in used_in(config.mode) else set()
    with suppress(ConfigError, OSError):
        found.add(load_run_config(path_of(config.model_dir) / _SETTINGS)[0].data_dir)
    return {path for path in found if path and not is_url(path)}


def _spare_files(config: Config) -> None:
    """Refuses to replace a file that Convoy did not write.

    Predictions are checked where they are opened.
    """
    for flag, place, kind in _replaced(config):
        if not is_url(place) and not is_own(Path(place), kind):
            raise ConfigError(
                f"{place} exists, and is not {_WORDS[kind]}: move the file, or choose another"
                f" {flag}"
            )
    if "log_filename" in used_in(config.mode) and config.log_filename in _OF_A_RUN:
        raise ConfigError(
            f"--log_filename {config.log_filename}: a run writes another file of this name, so"
            " choose another"
        )


def _replaced(config: Config) -> Iterator[tuple[str, str, str]]:
    """Yields the flag, the file and its kind of what a mode replaces or continues."""
    if config.mode in RUN_MODES and not config.resume_checkpoint:
        yield "--model_dir", os.path.join(config.model_dir, _SETTINGS), "settings"
    if "log_filename" in used_in(config.mode):
        yield "--log_filename", os.path.join(config.model_dir, config.log_filename), "log"
    if config.mode == "eval" and config.report and config.report_dir:
        yield "--report_dir", os.path.join(config.report_dir, "report.html"), "page"
        yield "--report_dir", os.path.join(config.report_dir, "metrics.json"), "evaluation"
    if config.mode == "report":
        yield "--output", str(comparison_page(config)), "page"
    if config.mode in BENCHMARK_MODES:
        stem = benchmark_stem(config, config.nproc or launched_processes())
        for ending in ("json", "md"):
            yield "--output", f"{stem}.{ending}", f"benchmark.{ending}"
