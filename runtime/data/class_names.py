"""Finds a name for each of a model's outputs. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from convoy.dataloader.errors import DataError
from convoy.dataloader.sources.label_files import read_names
from convoy.utils.errors import ConfigError
from convoy.utils.text import TextError, canonical, counted

IMAGENET = Path(__file__).with_name("imagenet_classes.txt")


@lru_cache(maxsize=1)
def imagenet_classes() -> dict[str, str]:
    """Returns ImageNet-1k's synset ids in the order of the class numbers, and their names."""
    lines = IMAGENET.read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines if not line.startswith("#"))


def class_names(
    names: Sequence[str] | None, classes: int, label_file: str | None = None
) -> list[str]:
    """Returns one name per class.

    They come from `--label_file`, or otherwise from the training data; ImageNet's synset ids
    (`n01440764`) are replaced by their meaning. A thousand classes without names count as
    ImageNet's; any other class without a name gets its number.

    Args:
        names: the names in the checkpoint, or None.
        classes: number of the model's outputs.
        label_file: a text file with one name per line, in the order of the classes.

    Raises:
        ConfigError: the file cannot be read, has another number of names, has an empty line among
            them, or has the training data's names in another order.
    """
    if label_file:
        names = read_label_file(label_file, classes, names)
    imagenet = imagenet_classes()
    if not names and classes == len(imagenet):
        return list(imagenet.values())
    # Checkpoints of earlier versions stored names as in the file system.
    names = [canonical(name) for name in list(names or [])[:classes]]
    if names and all(name in imagenet for name in names):
        names = [imagenet[name] for name in names]
    return names + [str(i) for i in range(len(names), classes)]


def read_label_file(file: str, classes: int, trained: Sequence[str] | None) -> list[str]:
    """Reads the names in `--label_file`; see `class_names`, whose `names` are here `trained`."""
    try:
        names = read_names(file, f"--label_file {file}")
    except OSError as error:
        raise ConfigError(f"--label_file {file} cannot be read: {error.strerror}") from error
    except (DataError, TextError) as error:  # this file is a setting, not part of the data
        raise ConfigError(str(error)) from error
    if len(names) != classes:
        is_data = names[0][:1] in ("{", "[") or str(file).lower().endswith(
            (".json", ".yaml", ".csv")
        )
        has = "is not a list of lines" if is_data else f"has {counted(len(names), 'line')}"
        raise ConfigError(
            f"--label_file {file} {has}, and the model has {counted(classes, 'class')}: a text file"
            " with one name a line is needed, in the order of the class numbers"
        )
    learnt = [canonical(name) for name in trained or []]
    # Other names may be translations, but nobody wants the same names in another order.
    if names != learnt and sorted(names) == sorted(learnt):
        line = next(n for n in range(classes) if names[n] != learnt[n])
        raise ConfigError(
            f"--label_file {file} has the model's class names in another order: line {line + 1} is"
            f" {names[line]!r}, and the model learnt this class as {learnt[line]!r}. Leave"
            " --label_file out: the model knows its names"
        )
    return names
