"""Matches each class of the data with a class of the model, by name if both have names.

A class's number is its place in a sorted list, so the same number means another class as soon as a
folder is renamed, added or removed. This module never matches by number without a message. Imports
no TensorFlow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from convoy.dataloader.data_loader import DataLoader
from convoy.dataloader.errors import DataError
from convoy.dataloader.sources.renumbered import UNKNOWN, Renumbered
from convoy.dataloader.sources.source import Source
from convoy.runtime.data.class_names import imagenet_classes, read_label_file
from convoy.utils.distributed import ranks
from convoy.utils.text import canonical, some


def known_names(
    trained: Sequence[str] | None, classes: int, label_file: str | None = None
) -> list[list[str]]:
    """Returns lists of names for a model's classes, most reliable first.

    Args:
        trained: names in its training data; fewer than `classes` if it has more outputs.
        classes: number of outputs.
        label_file: `--label_file`.

    Returns:
        The names of the training data, those of the file, and ImageNet's synset ids and words if
        these are its classes. Empty: the classes have no names.
    """
    imagenet, found = imagenet_classes(), []
    if trained:
        found.append(list(trained))
    if label_file:
        found.append(read_label_file(label_file, classes, trained))
    if not trained and classes == len(imagenet):
        found += [list(imagenet), list(imagenet.values())]
    elif trained and all(name in imagenet for name in trained):
        found.append([imagenet[name] for name in trained])
    return found


def match_classes(
    source: Source, known: Sequence[Sequence[str]], classes: int, data: str
) -> tuple[Source, list[str]]:
    """Returns the data with labels in a model's classes. All ranks must call it.

    Args:
        source: the data, with or without class names.
        known: see `known_names`.
        classes: number of the model's outputs.
        data: the data's name in messages, such as "--data_dir photos".

    Returns:
        The source, renumbered if necessary, and lines about classes not matched by name.

    Raises:
        DataError: there are images of classes that the model lacks, or it is unclear which of the
            model's classes are meant.
    """
    theirs = source.class_names
    if not theirs:
        return source, _without_names(source, known, classes, data)
    if known:
        _check_unique(theirs, known, data)
    for names in known:
        numbers = _numbers(theirs, names)
        if UNKNOWN not in numbers or not _unknown(source, numbers):
            return _renumbered(source, numbers, known[0], classes), _missing(numbers, names)
    if known:
        names = known[0]
        unknown = _unknown(source, _numbers(theirs, names))
        raise DataError(
            f"{data} has images of {_classes(unknown)}, which the model does not know; it knows"
            f" {some(names, 10)}. Rename or remove what is not meant, or give the model's names"
            " with --label_file, one per line in the order of its class numbers"
        )
    return _by_number(source, classes, data)


def numbered_like(training: DataLoader, data: str) -> Callable[[Source], Source] | None:
    """Returns a function that numbers validation data's classes as in the training data.

    It is None if both already have the same numbers.

    Args:
        training: the training loader.
        data: as in `match_classes`.
    """
    source, names = training.source, training.class_names
    if not isinstance(source, Renumbered) or not names:
        return None
    return lambda other: match_classes(other, [names], training.num_classes, data)[0]


def _numbers(theirs: Sequence[str], names: Sequence[str]) -> list[int]:
    """Returns each name's number in a list of the model's names.

    It is `UNKNOWN` if the name is missing or occurs twice, except that two equal lists match.
    """
    keys = [canonical(name) for name in names]
    if keys == [canonical(name) for name in theirs]:
        return list(range(len(keys)))
    twice = _repeated(keys)
    places = {key: i for i, key in enumerate(keys) if key not in twice}
    return [places.get(canonical(name), UNKNOWN) for name in theirs]


def _repeated(keys: Sequence[str]) -> list[str]:
    return [key for key, count in Counter(keys).items() if count > 1]


def _check_unique(theirs: Sequence[str], known: Sequence[Sequence[str]], data: str) -> None:
    """Raises DataError if two classes of the data share a name and the model's list differs."""
    keys = [canonical(name) for name in theirs]
    twice = _repeated(keys)
    if twice and keys not in [[canonical(name) for name in names] for names in known]:
        raise DataError(
            f"{data} gives {_classes(twice)} to several class numbers, so it is unclear which of"
            " the model's classes are meant: name each class differently in its labels.txt"
        )


def _unknown(source: Source, numbers: Sequence[int]) -> list[str]:
    """Returns the data's classes that have images but no number."""
    occurring = ranks.on_rank0(source.occurring_labels)
    names = source.class_names or []
    return [names[i] for i in occurring if 0 <= i < len(names) and numbers[i] == UNKNOWN]


def _renumbered(
    source: Source, numbers: list[int], names: Sequence[str] | None, classes: int
) -> Source:
    if numbers == list(range(classes)):
        return source
    return Renumbered(source, numbers, names, classes)


def _missing(numbers: Sequence[int], names: Sequence[str]) -> list[str]:
    """Returns a line about the model's classes that the data lack."""
    missing = [name for i, name in enumerate(names) if i not in set(numbers)]
    if not missing:
        return []
    return [f"the data lack {_classes(missing)} of the model's {len(names)} classes"]


def _without_names(
    source: Source, known: Sequence[Sequence[str]], classes: int, data: str
) -> list[str]:
    if source.num_classes is not None and source.num_classes > classes:
        raise DataError(
            f"{data} has {source.num_classes} classes, and the model {classes}: it does not know"
            " all of them"
        )
    if not known:
        return []  # as in training: there are only numbers
    return [
        f"{data} does not name its classes (labels.txt would): its labels are taken for the"
        f" model's numbers, 0 for {known[0][0]} and so on"
    ]


def _by_number(source: Source, classes: int, data: str) -> tuple[Source, list[str]]:
    """Matches by number, for models without class names."""
    theirs = source.class_names or []
    if all(name.isdecimal() and int(name) < classes for name in theirs):
        line = f"the model does not name its classes: the names in {data} are taken for its numbers"
        return _renumbered(source, [int(name) for name in theirs], None, classes), [line]
    if len(theirs) == classes:
        pairs = some([f"{i} {name}" for i, name in enumerate(theirs)])
        return source, [
            f"WARNING: the model does not name its classes: those of {data} are taken in their"
            f" order ({pairs}); --label_file gives the model's names"
        ]
    raise DataError(
        f"the model does not name its {classes} classes, and {data} has {len(theirs)}"
        f" ({some(theirs)}): say which are which with --label_file, one name per line in the order"
        " of the model's class numbers"
    )


def _classes(names: Sequence[str]) -> str:
    return f"the {'class' if len(names) == 1 else 'classes'} {some([repr(n) for n in names])}"
