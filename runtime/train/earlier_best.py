"""Finds a resumed run's best result so far, if it evaluates other images or by another metric.

Results can be compared only if they are of the same images. The metric may change, because a
checkpoint holds all figures of its evaluation (`score.json`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from convoy.dataloader.data_loader import DataLoader
from convoy.dataloader.sources.identity import identify_all
from convoy.runtime.data.changed_data import classes_changed
from convoy.runtime.run_folder.checkpoint import add_score, complete_checkpoints, read_state
from convoy.runtime.run_folder.ranking import METRICS
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.images import eval_crop, image_size
from convoy.runtime.train.best import (
    as_best,
    best_text,
    better_weights,
    comparable,
    same_images,
)
from convoy.runtime.train.step import TrainState
from convoy.utils.distributed import ranks
from convoy.utils.optional import known

Images = dict[str, Any]
"""What the model sees: `examples`, their number; `list`, from `identify_all`; and `shown`, how
each is cut, by flag."""


def images_of(data: DataLoader, config: Config) -> Images | None:
    """Returns what identifies the images of a loader; None if they are synthetic. All ranks."""
    if (source := data.source) is None:
        return None
    digest = ranks.on_rank0(lambda: identify_all(source))
    crop = eval_crop(config)
    shown = {
        "image_size": image_size(config),
        "eval_crop": crop.method,
        "crop_padding": crop.padding,
        "interpolation": crop.interpolation,
        "exif_orientation": crop.exif_orientation,
    }
    return {"examples": data.num_examples, "list": digest, "shown": shown}


def find_earlier_best(
    state: TrainState,
    config: Config,
    images: Images | None,
    class_names: Sequence[str] | None = None,
) -> list[str]:
    """Replaces a restored best that is missing or does not count any more. All ranks must call it.

    It is missing if a launch dropped it, for other images say, and ended before its first
    evaluation. `--mode train` evaluates nothing, so there a best stays as it is.

    Args:
        state: restored; `best` and `waited` change.
        config: the flags.
        images: the validation images, from `images_of`.
        class_names: the classes of the training data, if they have names.

    Returns:
        Lines for the user.
    """
    before = state.best
    if config.mode == "train" or (before and comparable(before, config.best_metric, images)):
        return []
    found = ranks.on_rank0(lambda: _best_saved(before, config, images, class_names))
    if not before and not found:
        return []
    state.best, state.waited = found, 0
    lines = _other_images(before, images) if before else []
    if state.best:
        what = (
            "of these images" if lines or not before else f"by --best_metric {config.best_metric}"
        )
        epoch, value = state.best["epoch"], best_text(state.best)
        lines.append(f"the best evaluation {what} so far is that of epoch {epoch}: {value}")
    return lines


def _other_images(before: Mapping[str, Any], images: Images | None) -> list[str]:
    if same_images(noted := before.get("images"), images):
        return []
    was, now = known(noted), images or {"examples": 0}
    if was["examples"] != now["examples"]:
        change = f"{now['examples']} instead of {was['examples']}"
    elif was["list"] != now["list"]:
        change = f"{now['examples']} as before, but other files"
    else:
        shown = now["shown"]
        pairs = [(flag, old) for flag, old in was["shown"].items() if shown[flag] != old]
        change = ", ".join(f"--{flag} {shown[flag]} instead of {old}" for flag, old in pairs)
    return [
        f"WARNING: the validation images changed ({change}), so earlier results cannot be compared"
        f" with new ones. The best so far, that of epoch {before['epoch']} ({best_text(before)}),"
        " does not count any more; its checkpoint is kept"
    ]


def _best_saved(
    before: Mapping[str, Any],
    config: Config,
    images: Images | None,
    class_names: Sequence[str] | None,
) -> dict[str, Any]:
    """Returns the best saved evaluation of these images and classes; {} if there is none.

    It also notes in that checkpoint which of its weights are better by the present metric.
    """
    if config.no_checkpoints:
        return {}
    by, found = METRICS[config.best_metric], []
    for path in complete_checkpoints(config.model_dir):
        state = read_state(path)
        # Older versions did not note the images.
        noted = (state.get("judged") or {}).get("images", before.get("images"))
        if state.get("score") is None or not same_images(noted, images):
            continue
        if classes_changed(state, class_names):
            continue
        figures = state["metrics"]
        weights = better_weights(figures, (path / "ema.safetensors").exists(), config.best_metric)
        if by.of(figures, weights == "ema") is not None:
            found.append((by.rank(figures, weights), weights, state, path))
    if not found:
        return {}
    rank, weights, state, path = max(found, key=lambda one: one[0])  # of equal ones the earliest
    facts: dict[str, Any] = {
        name: state[name] for name in ("best", "waited", "metrics") if name in state
    }
    facts |= {"score": rank[0], "better_weights": weights}
    facts["judged"] = {"metric": by.name, "images": images}
    with suppress(OSError):  # it only saves the next launch this choice
        add_score(path, facts)
    return as_best(config.best_metric, state["metrics"], weights, state, images)
