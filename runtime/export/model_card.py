"""Writes the model card beside an export: Markdown under YAML front matter, as model hubs read it.

Its facts come from the run's folder; missing ones are called unknown. Imports no TensorFlow.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from convoy.runtime.export.formats import ENOUGH_IMAGES, INT8
from convoy.runtime.settings.flag_facts import having
from convoy.runtime.settings.flags import Fact

FILE = "model_card.md"
NAMES_SHOWN, NAME_LENGTH = 20, 60
FEW_IMAGES = 1000
# Characters that could become markup, HTML, mathematics or a link within a line.
_MARKUP = re.compile(r"[\\`*_\[\]<>&|~#!:@$]|\.(?!\d)")
UNKNOWN = "unknown"


def model_card(content: dict[str, Any]) -> str:
    """Returns the text of a card.

    Args:
        content: the content of `export.json`.
    """
    # Not wrapped: a continuation line could look like the end of the front matter.
    front = yaml.safe_dump(_front(content), sort_keys=False, allow_unicode=True, width=math.inf)
    sections = [
        f"# {_escape(content['arch'])}",
        _about(content),
        "## Data\n\n" + _data(content),
        "## Recipe\n\n" + _recipe(content),
        "## Metrics\n\n" + _metrics(content),
        "## Files\n\n" + _files(content),
        "## Limits\n\n" + "\n".join(f"- {line}" for line in _limits(content)),
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(sections) + "\n"


def _front(content: dict[str, Any]) -> dict[str, Any]:
    arch, known = _one_line(content["arch"]), _evaluation(content)
    front: dict[str, Any] = {
        "license": UNKNOWN,
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "convoy", arch, *sorted(content.get("formats", {}))],
    }
    if known:
        dataset = _one_line(_dataset(content) or UNKNOWN)
        metrics = [
            {"type": "accuracy", "name": f"top-{k}", "value": round(known[f"top{k}"], 4)}
            for k in (1, 5)
            if known.get(f"top{k}") is not None
        ]
        result = {
            "task": {"type": "image-classification"},
            "dataset": {"type": dataset, "name": dataset, "split": "validation"},
            "metrics": metrics,
        }
        front["model-index"] = [{"name": arch, "results": [result]}]
    return front


def _about(content: dict[str, Any]) -> str:
    classes, how = len(content["classes"]), content["preprocessing"]
    return (
        f"An image classifier of {classes} classes, exported by Convoy from"
        f" {_escape(content['source'])}. It takes RGB images of {how['image_size']} ×"
        f" {how['image_size']} pixels, 0 to 255; normalisation is inside. `export.json` says,"
        " under `preprocessing`, how to resize and crop an image to that size."
    )


def _data(content: dict[str, Any]) -> str:
    data, dataset = content.get("data") or {}, _dataset(content)
    lines = [f"- data set: {_escape(dataset) if dataset else UNKNOWN}"]
    images = data.get("train_examples")
    lines.append(f"- training images: {f'{images:,}' if images else UNKNOWN}")
    names = [_escape(name) for name in content["classes"][:NAMES_SHOWN]]
    more = len(content["classes"]) - len(names)
    named = ", ".join(names) + (f" and {more} more" if more else "")
    if data.get("named") is False and not content.get("label_file"):
        named += " (the data named none: these are numbers, or ImageNet's names for 1,000 classes)"
    lines.append(f"- classes: {named}")
    lines.append("- where the images come from, their licence and who is on them: unknown")
    return "\n".join(lines)


def _recipe(content: dict[str, Any]) -> str:
    settings = content.get("training")
    if not settings:
        return "Unknown: the weights came from a file that keeps no settings."
    if settings.get("augmenter_name") != "autoaugment":
        settings = settings | {"autoaugmentation_name": None}
    rows = [
        (f"`{name}`", _escape(settings[name]))
        for name in having(Fact.CARD)
        if settings.get(name) not in (None, False, 0, "none")
    ]
    return _table(("setting", "value"), rows) + "\n\nAll settings are in `export.json`."


def _metrics(content: dict[str, Any]) -> str:
    known, parts = _evaluation(content), []
    if known:
        size = known.get("images")
        on = f"{size:,} validation images, each counted once" if size else (
            "the validation images, whose number the run's folder does not say"
        )  # fmt: skip
        rows = []
        for k in (1, 5):
            value = known.get(f"top{k}")
            if value is not None:
                rows.append((f"top-{k}", f"{value:.2%}", _interval(value, size)))
        if known.get("loss") is not None:
            rows.append(("loss", f"{known['loss']:.4f} nats", ""))
        head = ("metric", "value", "95 % interval, from the number of images only")
        parts.append(f"Of the Keras model, on {on}:\n\n{_table(head, rows)}")
    else:
        parts.append(
            "Unknown: the run's folder holds no evaluation of these weights on images of this size"
            " and crop."
        )
    sample = (content.get("accuracy") or {}).get("sample")
    if sample is not None:
        parts.append(
            f"On the validation images that the exports were compared on: top-1 {sample:.2%}."
        )
    return "\n\n".join(parts)


def _files(content: dict[str, Any]) -> str:
    rows, origin = [], content.get("source")
    for name, entry in content.get("formats", {}).items():
        measured = entry if entry.get("passed") else {}
        agreement, accuracy = measured.get("top1_agreement"), measured.get("top1_accuracy")
        kept = "" if entry.get("passed") is not False else " (not kept)"
        if entry.get("source", origin) != origin:  # exported at another time than the others
            kept += f" of {_escape(entry['source'])}"
        rows.append((
            f"`{entry.get('file', name)}`{kept}",
            f"{entry.get('bytes', 0) / 2**20:.1f} MiB",
            f"{entry.get('images', 0)}",
            "" if agreement is None else f"{agreement:.2%}",
            "" if accuracy is None else f"{accuracy:.2%}",
        ))  # fmt: skip
    head = ("file", "size", "images compared", "top-1 agrees with Keras", "top-1")
    versions = (f"{k} {_escape(v)}" for k, v in (content.get("versions") or {}).items() if v)
    return f"{_table(head, rows)}\n\nWritten with {', '.join(versions)}."


def _limits(content: dict[str, Any]) -> Iterator[str]:
    known = _evaluation(content)
    if not known and (content.get("accuracy") or {}).get("sample") is not None:
        yield "Its accuracy is known only on the images that the exports were compared on."
    elif not known:
        yield "Its accuracy is not known."
    elif not known.get("images"):
        yield "The number of images that its accuracy was measured on is not known."
    elif known["images"] < FEW_IMAGES:
        yield f"Its accuracy was measured on only {known['images']} validation images."
    if (content.get("accuracy") or {}).get("best_of_the_run"):
        yield (
            "The weights were chosen as the best of several on the same validation images as its"
            " accuracy was measured on, so the accuracy is optimistic."
        )
    if not _dataset(content):
        yield "Its training data are not known here, so it is not known what it may be used for."
    yield (
        "It was not tested on images unlike the training images, nor on whether it treats groups"
        " of people alike."
    )
    yield "It gives every image a class, even an image that shows none of the classes."
    yield "Probabilities were not calibrated."
    compared = [e.get("images", 0) for e in (content.get("formats") or {}).values()]
    if 0 in compared:
        yield "Not every file was compared with the Keras model; see the table."
    elif compared and min(compared) < ENOUGH_IMAGES:
        yield f"Files were compared with the Keras model on {min(compared)} images only."
    formats = content.get("formats") or {}
    if any(formats.get(name, {}).get("passed") for name in INT8):
        yield "An 8-bit file gives other classes than the others for some images; see the table."
    for entry in formats.values():
        if (entry.get("quantisation") or {}).get("calibrations") and entry.get("passed"):
            yield (
                f"How `{entry['file']}` was quantised was chosen on the same images that it was"
                " compared on, so its figures in the table are optimistic."
            )


def _dataset(content: dict[str, Any]) -> str | None:
    """Returns the data set's name if the settings contain it: only for TensorFlow Datasets.

    `--dataset ImageNet` is the flag's default and means any folder.
    """
    dataset = str((content.get("training") or {}).get("dataset", ""))
    return dataset if dataset.startswith("tfds:") else None


def _evaluation(content: dict[str, Any]) -> dict[str, Any]:
    """Returns the run's measurements of these weights on images cropped as here; or {}.

    They are fractions, `loss` and `images`.
    """
    accuracy = content.get("accuracy") or {}
    metrics = accuracy.get("metrics") or {}
    kind = "eval_ema_" if content.get("weights") == "ema" else "eval_"
    asked = accuracy.get("of_these_weights") and accuracy.get("of_such_images")
    if not asked or f"{kind}accuracy_top_1" not in metrics:
        return {}
    images = metrics.get("eval_examples")
    return {
        "top1": metrics[f"{kind}accuracy_top_1"],
        "top5": metrics.get(f"{kind}accuracy_top_5") if len(content["classes"]) > 5 else None,
        "loss": metrics.get(f"{kind}loss"),
        "images": int(images) if images else None,
    }


def _interval(share: float, size: int | None) -> str:
    """Returns Wilson's score interval at 95 %."""
    if not size:
        return ""
    z = 1.959964
    middle = share + z**2 / (2 * size)
    half = z * math.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    low, high = ((middle + sign * half) / (1 + z**2 / size) for sign in (-1, 1))
    return f"{max(0.0, low):.1%} to {min(1.0, high):.1%}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escape(value: Any) -> str:
    """Escapes any text for Markdown, so that it shows exactly that text on one line."""
    text = _one_line(value)
    if len(text) > NAME_LENGTH:
        text = text[: NAME_LENGTH - 1] + "…"
    return _MARKUP.sub(r"\\\g<0>", text)


def _one_line(value: Any) -> str:
    """Removes control characters, line breaks and runs of spaces."""
    text = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in str(value))
    return " ".join(text.split())
