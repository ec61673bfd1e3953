"""Computes the files that a report or a benchmark writes, from the flags. Imports no TensorFlow."""

from __future__ import annotations

from pathlib import Path

from convoy.runtime.settings.config import Config
from convoy.utils.files import Remote, in_folder, path_of


def comparison_page(config: Config) -> Path | Remote:
    """Returns the page of `--mode report`.

    It is `--output`, or comparison.html in that folder. Without `--output` it is comparison.html,
    in `--model_dir` if given.
    """
    name = "comparison.html"
    if config.output:
        page = in_folder(config.output, name)
    elif config.model_dir == Config.model_dir:
        page = path_of(name)
    else:
        page = path_of(config.model_dir) / name
    return page if page.name.endswith(".html") else page.with_name(f"{page.name}.html")


def plots_of_page(page: Path | Remote) -> Path | Remote:
    """Returns the folder of a comparison's plots, beside the page."""
    return page.parent / page.name.removesuffix(".html")


def benchmark_stem(config: Config, num_ranks: int) -> str:
    """Returns the place of a benchmark's `.json` and `.md`, without the ending.

    It is `--output`, or `MODE_Nx` for N processes in that folder; without `--output`, in
    `--model_dir`.
    """
    name = f"{config.mode}_{num_ranks}x"
    place = str(in_folder(config.output, name)) if config.output else f"{config.model_dir}/{name}"
    return place.removesuffix(".json").removesuffix(".md")
