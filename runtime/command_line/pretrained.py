"""Implements `--pretrained`: finds published weights of `--arch`.

The result is the same as if `--pretrained_from_file` had named the file, and the run's
`config.yaml` does name it. No TensorFlow.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from convoy.runtime.fitted.choose import settings_of_the_run
from convoy.runtime.settings.config import Config, load_config
from convoy.runtime.settings.model_checks import check_model
from convoy.runtime.settings.modes import APPLYING_MODES, TRAINING_MODES
from convoy.utils.errors import ConfigError
from convoy.utils.files import path_of
from convoy.utils.text import some, tell, wrapped

_REASONS = 5  # most unusable files to list in a message


def settle_pretrained(config: Config, speaks: bool) -> dict[str, Any]:
    """Returns the settings that replace `--pretrained`.

    Args:
        config: the settings, with that flag.
        speaks: whether this process prints messages about settings.

    Raises:
        ConfigError: both flags are given, the mode reads no weights, or none were found; then the
            text lists where.
    """
    if config.pretrained_from_file:
        raise ConfigError(
            "--pretrained looks for weights itself, and --pretrained_from_file"
            f" {config.pretrained_from_file} names them: give one of the two"
        )
    if config.mode not in (*TRAINING_MODES, *APPLYING_MODES, "convert"):
        raise ConfigError(
            f"--pretrained has no effect in --mode {config.mode}, which reads no weights"
        )
    check_model(config)
    if config.resume_checkpoint and (before := settings_of_the_run(config)):
        # The checkpoint has the weights; the file, which may be gone, says how the model was built.
        return {"pretrained": False, "pretrained_from_file": before.pretrained_from_file}
    path, origin = _find(config, speaks)
    if speaks:
        text = f"convoy: --pretrained: {config.arch} from {origin}: {path}"
        print(wrapped(text), file=sys.stderr)
    return {"pretrained": False, "pretrained_from_file": str(path.absolute())}


def arch_of_run(model_dir: str) -> dict[str, str]:
    """Returns the architecture of the run in a folder, as a setting; {} if there is no run."""
    with suppress(ConfigError, OSError):
        return {"arch": load_config(path_of(model_dir) / "config.yaml").arch}
    return {}


def _find(config: Config, speaks: bool) -> tuple[Path, str]:
    """Returns the weight file and its origin."""
    from convoy.model.weights.download import DownloadError, download, published
    from convoy.model.weights.search import FOLDER, all_places, keras_folder, search

    told, home = os.environ.get(FOLDER), Path.home()
    if told and not Path(told).is_dir():
        raise ConfigError(f"{FOLDER} names {told}, which is not a folder")
    places = all_places(os.environ, home)
    classifier = config.mode not in TRAINING_MODES
    done = search(config.arch, places, classifier=classifier, padding=config.padding)
    if done.found:
        return done.found.path, done.found.origin

    def say(text: str) -> None:
        if speaks:
            tell(f"convoy: {text}")

    failed = []
    if file := published(config.arch):
        if done.refused:
            say(_called(config.arch, done.refused))
        try:
            path = download(file, keras_folder(os.environ, home), say)
        except DownloadError as error:
            failed.append(f"Download failed: {error}.")
        else:
            for line in _refused(config.arch, done.refused):
                say(line)
            return path, file.url
    where = ", ".join(place.name for place in places)
    lines = _refused(config.arch, done.refused)
    which = "No other file has such a name" if lines else f"no weights of {config.arch}"
    lines.append(f"{which} in {where}.")
    if told:
        lines += _others(config.arch, Path(told))
    raise ConfigError(
        "\n".join(["--pretrained: " + lines[0], *lines[1:], *failed, _way_out(config.arch)])
    )


def _refused(arch: str, reasons: Sequence[str]) -> list[str]:
    """Returns lines about files whose names match `arch` but which cannot be used."""
    if not reasons:
        return []
    lines = [f"{_called(arch, reasons)}:"]
    lines += [f"  {' '.join(reason.splitlines())}" for reason in reasons[:_REASONS]]
    more = len(reasons) - _REASONS
    return lines + ([f"  and {more} more"] if more > 0 else [])


def _called(arch: str, reasons: Sequence[str]) -> str:
    what = "one file has a name" if len(reasons) == 1 else f"{len(reasons)} files have names"
    return f"{what} of {arch} weights but cannot be used"


def _others(arch: str, folder: Path) -> list[str]:
    """Returns a line about the user's files under other names."""
    from convoy.model.weights.search import FOLDER, called, of_other_names

    if not (others := of_other_names(folder, arch)):
        return []
    lie = f"{len(others)} weight files have other names"
    if len(others) == 1:
        lie = "one weight file has another name"
    named = some([os.path.relpath(path, folder) for path in others], 3)
    return [
        f"In {FOLDER} {lie} ({named}): for {arch}, a file or its folder needs a name"
        f" such as {called(arch)}; more may follow {arch} in it."
    ]


def _way_out(arch: str) -> str:
    """Says how to get weights."""
    from convoy.model.weights.search import FOLDER, PACKAGES

    name = f"name it with --pretrained_from_file, or put it into a folder that {FOLDER} names"
    if arch in PACKAGES:
        return f"Get them: pip install {PACKAGES[arch]}. Or take a file and {name}"
    near = next(iter(PACKAGES))
    return (
        f"Get a file of timm, torchvision or Keras and {name}. Or train another network: pip"
        f" has weights only for others, such as --arch {near}: pip install {PACKAGES[near]}"
    )
