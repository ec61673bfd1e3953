"""A name for each of a model's outputs. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from convoy.dataloader.errors import DataError
from convoy.dataloader.sources.label_files import read_names
from convoy.utils.errors import ConfigError
from convoy.utils.text import TextError, canonical

IMAGENET = Path(__file__).with_name("imagenet_classes.txt")


@lru_cache(maxsize=1)
def imagenet_classes() -> dict[str, str]:
    """ImageNet-1k's synset ids, in the order of the class numbers, and their names."""
    lines = IMAGENET.read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines if not line.startswith("#"))


def class_names(
    names: Sequence[str] | None, classes: int, label_file: str | None = None
) -> list[str]:
    """One name a class.

    `--label_file` has them, or else the training data had; ImageNet's synset ids (`n01440764`)
    are replaced by what they mean. A thousand classes that nothing names are taken for ImageNet's;
    any other class without a name has its number.

    Args:
        names: those that the checkpoint kept, or None.
        classes: how many outputs the model has.
        label_file: a text file with one name a line, in the order of the classes.

    Raises:
        ConfigError: the file cannot be read, holds another number of names,
            or has an empty line among them.
    """
    if label_file:
        names = read_label_file(label_file, classes)
    imagenet = imagenet_classes()
    if not names and classes == len(imagenet):
        return list(imagenet.values())
    # Checkpoints of earlier versions keep them as the file system had them.
    names = [canonical(name) for name in list(names or [])[:classes]]
    if names and all(name in imagenet for name in names):
        names = [imagenet[name] for name in names]
    return names + [str(i) for i in range(len(names), classes)]


def read_label_file(file: str, classes: int) -> list[str]:
    """The names in `--label_file`; see `class_names`."""
    try:
        names = read_names(file, f"--label_file {file}")
    except OSError as error:
        raise ConfigError(f"--label_file {file} cannot be read: {error.strerror}") from error
    except (DataError, TextError) as error:  # it is a file of settings, not of the data
        raise ConfigError(str(error)) from error
    if len(names) != classes:
        raise ConfigError(
            f"--label_file {file} has {len(names)} lines, and the model {classes} classes: one name"
            " a line is needed, in the order of the class numbers"
        )
    return names
