"""Compares a resumed run's training data with its checkpoint.

It decides which changes keep the weights' meaning. Imports no TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from convoy.dataloader.data_loader import DataLoader
from convoy.dataloader.sources.identity import identify, known_again
from convoy.dataloader.sources.renumbered import Renumbered
from convoy.dataloader.sources.source import Source
from convoy.runtime.settings.config import Config
from convoy.utils.errors import ConfigError
from convoy.utils.optional import known
from convoy.utils.text import canonical, some

Say = Callable[[str], None]


def facts(data: DataLoader) -> dict[str, Any]:
    """Returns what a checkpoint stores about its data in `state.json`.

    Args:
        data: the training loader.
    """
    return {
        "train_examples": data.num_examples,
        "named": bool(data.class_names),
        "list": data.list_digest,
        "absent_classes": [] if data.source is None else list(data.source.absent),
    }


def changes(saved: Mapping[str, Any], data: DataLoader) -> list[str]:
    """Says how the list of training images has changed.

    Args:
        saved: the checkpoint's `state`.
        data: the training loader of this launch.

    Returns:
        A line for the user, or none.
    """
    before, now = saved.get("data") or {}, facts(data)
    if before.get("list") in (None, now["list"]) and _same("train_examples", before, now):
        return []
    if _same("train_examples", before, now):
        text = f"other training images than before, the same number ({now['train_examples']})"
    else:
        text = f"{_images(now['train_examples'])} instead of {before['train_examples']}"
    rest = "; the rest of the unfinished epoch is of the new list" if saved["offset"] else ""
    return [f"{text}: the order of every epoch changes{rest}"]


def _same(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return before.get(name) in (None, now[name])


# ---- classes ------------------------------------------------------------------------------------


def with_classes_of(
    saved: Mapping[str, Any], config: Config, say: Say
) -> Callable[[Source], Source]:
    """Returns a function that numbers the classes of training data as the checkpoint's weights do.

    The function raises ConfigError if the data have classes that the weights do not know, or lack
    some, without `--accept_changed_classes`; or if the head has too few outputs for them. A class
    that was absent in the earlier launch may be absent again.

    Args:
        saved: the checkpoint's `state`.
        config: the flags.
        say: prints a line.
    """
    classes, before = saved["model"]["num_classes"], saved.get("class_names")
    absent = {canonical(name) for name in (saved.get("data") or {}).get("absent_classes", [])}

    def adapt(source: Source) -> Source:
        now = source.class_names
        if not before or not now:
            return _one_sided(source, before, classes, say)
        places = {canonical(name): i for i, name in enumerate(before)}
        keys = [canonical(name) for name in now]
        if keys == list(places):
            return source
        gone = [name for name in before if canonical(name) not in set(keys)]
        new = [name for name in now if canonical(name) not in places]
        if gone and not new and {canonical(name) for name in gone} <= absent:
            names = before
            say(f"there are no training images of {_list(gone)}, as in the launch before")
        else:
            names = _with_new(before, new, gone, classes, config)
            for line in _told(new, gone):
                say(line)
        numbers = {canonical(name): i for i, name in enumerate(names)}
        return Renumbered(source, [numbers[key] for key in keys], names, classes)

    return adapt


def classes_changed(saved: Mapping[str, Any], names: Sequence[str] | None) -> bool:
    """Returns whether outputs have other classes, so earlier results are not comparable."""
    before = saved.get("class_names")
    if not before or not names:
        return False
    return [canonical(n) for n in before] != [canonical(n) for n in names[: len(before)]]


def _one_sided(source: Source, before: list[str] | None, classes: int, say: Say) -> Source:
    if not before:
        if source.class_names:
            say(f"the data name their classes now: 0 is {source.class_names[0]}, and so on")
        return source
    say(
        "WARNING: the data do not name their classes any more (labels.txt did): their labels are"
        f" taken for the weights' numbers, 0 for {before[0]} and so on"
    )
    return Renumbered(source, list(range(classes)), before, classes)


def _with_new(
    before: Sequence[str], new: list[str], gone: list[str], classes: int, config: Config
) -> list[str]:
    """Returns the new names of the weights' outputs.

    A new class replaces a removed one, in the order of the names, or takes an output without a
    class.
    """
    free = classes - len(before)
    what = f"{_list(gone, 'is', 'are')} gone, {_list(new, 'is', 'are')} new"
    if not gone:
        what = f"{_list(new, 'is', 'are')} new"
    elif not new:
        what = f"{_list(gone, 'is', 'are')} gone"
    start = (
        f"start another --model_dir from these weights with --pretrained_from_file"
        f" {config.model_dir}"
    )
    if len(new) > len(gone) + free:
        raise ConfigError(
            f"--resume_checkpoint: the data's classes are not the checkpoint's ({what}), which has"
            f" outputs for {classes}: {start}"
        )
    if gone and not config.accept_changed_classes:
        raise ConfigError(
            f"--resume_checkpoint: the data's classes are not the checkpoint's ({what}), so its"
            f" outputs would change their meaning. Restore the old names; or {start}; or continue"
            " nevertheless with --accept_changed_classes"
        )
    names = list(before)
    for name, old in zip(new, gone, strict=False):
        names[names.index(old)] = name
    return names + new[len(gone) :]


def _told(new: list[str], gone: list[str]) -> list[str]:
    if not new and not gone:
        return ["the classes have other numbers than before: they are matched by name"]
    lines = [
        f"WARNING: the class {name!r} continues with the weights of {old!r}"
        for name, old in zip(new, gone, strict=False)
    ]
    lines += [f"the class {name!r} is new, and takes a free output" for name in new[len(gone) :]]
    if missing := gone[len(new) :]:
        lines.append(f"WARNING: there are no training images of {_list(missing)} any more")
    if new and gone:
        lines.append("earlier results were of other classes: the best result so far is dropped")
    return lines


def _list(names: Sequence[str], one: str = "", many: str = "") -> str:
    verb = one if len(names) == 1 else many
    return f"{some([repr(name) for name in names])}{' ' if verb else ''}{verb}"


# ---- examples that cannot be read ---------------------------------------------------------------


def remember(data: DataLoader, bad: Mapping[int, str]) -> list[dict[str, Any]]:
    """Returns the identities of unreadable examples, for `state.json`.

    Args:
        data: the training loader; it caches the identities, because every save needs them.
        bad: number → its location and what is wrong with it.
    """
    if not bad:
        return []
    source = known(data.source)
    for i in bad.keys() - data.identities.keys():
        why = bad[i].removeprefix(f"{source.describe(i)}: ")
        data.identities[i] = identify(source, i) | {"why": why}
    return [data.identities[i] for i in sorted(bad)]


def recall(source: Source | None, kept: Any) -> tuple[dict[int, str], list[str]]:
    """Returns the unchanged examples by present number, and lines about the others.

    The others are tried again.

    Args:
        source: the present data; None if they are made up.
        kept: the result of `remember`; or, in a checkpoint of version 0.1, number → text.
    """
    if source is None or not kept:
        return {}, []
    if isinstance(kept, Mapping):
        return _by_number(source, kept)
    same, others = known_again(source, kept)
    found = {i: f"{source.describe(i)}: {one['why']}" for i, one in same.items()}
    return found, _tried_again([one["file"] for one in others])


def _by_number(source: Source, kept: Mapping[str, str]) -> tuple[dict[int, str], list[str]]:
    found, others = {}, []
    for number, why in kept.items():
        i = int(number)
        if i < source.num_examples and why.startswith(f"{source.describe(i)}: "):
            found[i] = why
        else:
            others.append(why.partition(": ")[0])
    return found, _tried_again(others)


def _tried_again(places: list[str]) -> list[str]:
    if not places:
        return []
    return [
        f"changed or removed, and no longer left out: {_images(len(places))} that could not be"
        f" read before ({some(places, 3)})"
    ]


def _images(count: int) -> str:
    return f"{count} training image{'' if count == 1 else 's'}"
