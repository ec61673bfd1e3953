"""Runs `--mode export`: writes a trained model for other programs, and checks each format.

The check uses the format's own runtime.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from convoy.dataloader.images.eval_crop import EvalCrop
from convoy.runtime.builders.trained_model import Trained, trained_model
from convoy.runtime.data.class_names import class_names
from convoy.runtime.export import model_card, onnx_int8
from convoy.runtime.export.formats import FORMATS, INT8, SIDE_FILE, Format, export_formats
from convoy.runtime.export.sample_images import Sample
from convoy.runtime.export.writers import READERS, WRITERS, Exportable, Outputs, head_input
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flag_facts import without_places
from convoy.runtime.settings.images import eval_crop
from convoy.utils import strict_json
from convoy.utils.errors import UserError
from convoy.utils.files import write_atomically

# What an entry of `export.json` says about its weights, as formats may be exported one by one.
ORIGIN = ("source", "weights", "weights_sha256", "epoch")


class ExportError(UserError, RuntimeError):
    """An export differs from the Keras model by more than allowed."""


def export(config: Config) -> dict[str, Any]:
    """Writes each format of `--export_format`, runs it, and compares it with the Keras model.

    A file moves to its place only after it has passed; `export.json` and a model card beside the
    files contain the measurements.

    Returns:
        The measurements by format.

    Raises:
        ExportError: a format differs too much; the others were written.
        DataError: there are no images for the comparison.
    """
    formats = export_formats(config.export_format)
    folder = export_folder(config)
    # Exports take NHWC images, whatever the run's format.
    trained = trained_model(config.with_(data_format="channels_last"))
    model = trained.model
    names = class_names(trained.class_names, model.output_shape[-1], config.label_file)
    crop = eval_crop(config).in_bytes()
    sample = Sample.read(config, trained)
    print(f"exporting {trained.text}, {sample.describe()}", flush=True)
    reference = _reference(model, sample, config.export_backbone) if sample.images else None
    if reference:
        sample.logits = reference["logits"]
        _check_finite(sample.logits, trained.text)
    metadata = _metadata(config, trained, names, crop)
    metadata["accuracy"]["sample"] = reference and sample.accuracy(reference["logits"])
    top = min(config.top_k, len(names))
    what = Exportable(model, names, crop, top, config.export_backbone, metadata)
    folder.mkdir(parents=True, exist_ok=True)
    side = folder / SIDE_FILE
    about, entries = _earlier(folder)
    results = {}
    for name in formats:
        results[name] = result = _export_one(name, what, folder, sample, reference)
        print(_line(name, result), flush=True)
        entry = {key: metadata[key] for key in ORIGIN} | result
        if result["passed"] or not entries:
            about = metadata
        if not result["passed"] and (folder / FORMATS[name].file).exists():
            entry = entries.get(name, {"file": FORMATS[name].file}) | {"last_attempt": entry}
        entries[name] = entry
        content = about | {"formats": entries}
        write_atomically(side, strict_json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        write_atomically(folder / model_card.FILE, model_card.model_card(content))
    failed = [name for name, result in results.items() if not result["passed"]]
    if failed:
        raise ExportError(
            f"{', '.join(failed)}: {results[failed[0]]['reason']}; not kept, see {side}."
            + (_INT8_ADVICE if len(failed) == 1 and failed[0] in INT8 else "")
        )
    print(f"wrote {folder}; its {SIDE_FILE} describes the files", flush=True)
    return results


_INT8_ADVICE = (
    " Networks with swish and squeeze-and-excitation quantise worse than ResNets and"
    " EfficientNet-Lite; tflite and onnx keep float32"
)


def _earlier(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the facts about the model in `export.json`, and the entries of the existing formats.

    Both are empty if the file is missing or damaged.
    """
    try:
        said = json.loads((folder / SIDE_FILE).read_text(encoding="utf-8"))
        entries = {
            name: {key: said.get(key) for key in ORIGIN} | said["formats"][name]
            for name, rules in FORMATS.items()
            if name in said["formats"] and (folder / rules.file).exists()
        }
        return said, entries
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, {}


def export_folder(config: Config) -> Path:
    """Returns the folder for the files."""
    return Path(config.output) if config.output else Path(config.model_dir) / "export"


def _check_finite(logits: np.ndarray, source: str) -> None:
    """Raises ExportError if the Keras model itself gives logits that are not finite."""
    bad = int(np.sum(~np.isfinite(logits).all(-1)))
    if bad:
        raise ExportError(
            f"{source} gives NaN or infinite logits for {bad} of {len(logits)} images, so its"
            " training has diverged: export another checkpoint with --checkpoint"
        )


def _reference(model: keras.Model, sample: Sample, features: bool) -> Outputs:
    """Returns the outputs of the Keras model."""
    net = keras.Model(model.input, [model.output, head_input(model)]) if features else model
    forward = tf.function(lambda images: net(images, training=False), autograph=False)
    results = [forward(tf.constant(images)) for images, _ in sample.batches()]
    if not features:
        return {"logits": np.concatenate([r.numpy() for r in results])}
    logits, vectors = (np.concatenate([r[i].numpy() for r in results]) for i in (0, 1))
    return {"logits": logits, "features": vectors}


def _export_one(
    name: str, what: Exportable, folder: Path, sample: Sample, reference: Outputs | None
) -> dict[str, Any]:
    """Writes one format to a temporary place, checks it, and moves it to its place if it is good.

    Without a `reference`, it is only loaded.
    """
    rules, place = FORMATS[name], folder / FORMATS[name].file
    aside = folder / f".{place.name}.{os.getpid()}"
    try:
        facts = WRITERS[name](what, aside, sample)
        result = {"file": rules.file, "bytes": _size(aside)}
        result |= {"quantisation": facts} if facts else {}
        runs = READERS[name](aside)
        if reference is None:
            result |= {"images": 0, "passed": True, "reason": "not compared"}
        else:
            result |= compare(runs, what.names, sample, reference, rules)
        if result["passed"]:
            place.parent.mkdir(parents=True, exist_ok=True)
            _remove(place)  # only reached with --overwrite
            os.replace(aside, place)
    finally:
        _remove(aside)
    return result


def compare(
    runs: Sequence[Callable[..., Outputs]],
    names: list[str],
    sample: Sample,
    reference: Outputs,
    rules: Format,
) -> dict[str, Any]:
    """Measures how far an export is from the Keras model, for the worst of its signatures.

    Returns:
        `images`, `top1_agreement` (fraction), `max_logit_difference`, `max_probability_difference`
        (also of `scores`), `max_feature_difference` (None without features), `top1_accuracy` (None
        without labels), `passed`, `reason`.
    """
    found = [_distance(run, names, sample, reference) for run in runs]
    agreement = min(one.agreement for one in found)
    worst = {
        "logit": max(one.logit for one in found),
        "probability": max(one.probability for one in found),
        "feature": max(one.feature for one in found),
    }
    kind = max(worst, key=lambda name: worst[name])
    reason = rules.objection(agreement, found[-1].lost)
    if reason is None and rules.difference is not None and worst[kind] > rules.difference:
        reason = f"a {kind} is off by {worst[kind]:.2g}, and {rules.difference:g} is allowed"
    if reason is None and any(one.misnamed for one in found):
        reason = "it names other classes than its probabilities mean"
    return {
        "images": len(sample.images),
        "top1_agreement": agreement,
        "max_logit_difference": worst["logit"],
        "max_probability_difference": worst["probability"],
        "max_feature_difference": worst["feature"] if "features" in reference else None,
        "top1_accuracy": found[-1].accuracy,
        "passed": reason is None,
        "reason": reason,
    }


class _Distance(NamedTuple):
    """How far one signature is from the Keras model.

    Attributes:
        agreement: fraction of images with the same top-1 class.
        logit, probability, feature: the largest differences; 0 without features.
        accuracy: top-1 on labelled images, as a fraction; None without labels.
        lost: top-1 of the Keras model less this one's; None without labels.
        misnamed: whether it names other classes than its probabilities mean.
    """

    agreement: float
    logit: float
    probability: float
    feature: float
    accuracy: float | None
    lost: float | None
    misnamed: bool


def _distance(
    run: Callable[..., Outputs], names: list[str], sample: Sample, reference: Outputs
) -> _Distance:
    parts = [run(images, encoded) for images, encoded in sample.batches()]
    got = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    wanted, shares = np.argmax(reference["logits"], -1), _softmax(reference["logits"])
    probability = _difference(got["probabilities"], shares)
    if "scores" in got:
        best_first = -np.sort(-shares, -1)[:, : got["scores"].shape[-1]]
        probability = max(probability, _difference(got["scores"], best_first))
    misnamed = False
    if "classes" in got:
        said = [text.decode() if isinstance(text, bytes) else text for text in got["classes"][:, 0]]
        misnamed = said != [names[i] for i in np.argmax(got["probabilities"], -1)]
    return _Distance(
        agreement=float(np.mean(np.argmax(got["logits"], -1) == wanted)),
        logit=_difference(got["logits"], reference["logits"]),
        probability=probability,
        feature=_difference(got["features"], reference["features"])
        if "features" in reference
        else 0.0,
        accuracy=sample.accuracy(got["logits"]),
        lost=sample.lost(reference["logits"], got["logits"]),
        misnamed=misnamed,
    )


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(np.float64(logits) - np.max(logits, -1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the largest difference; a NaN must not count as a small one."""
    worst = float(np.max(np.abs(np.float64(a) - np.float64(b))))
    return worst if np.isfinite(worst) else float("inf")


def _line(name: str, result: dict[str, Any]) -> str:
    """Formats the measurements: at most 80 columns, with a second line for optional ones."""
    if "top1_agreement" not in result:
        return f"{name:<12}{result['bytes'] / 2**20:7.1f} MiB  loaded, not compared"
    text = (
        f"{name:<12}{result['bytes'] / 2**20:7.1f} MiB"
        f"  top-1 agreement {result['top1_agreement']:.2%}"
        f"  |Δlogit| ≤ {result['max_logit_difference']:.2g}"
    )
    more = []
    if result["max_feature_difference"] is not None:
        more.append(f"|Δfeature| ≤ {result['max_feature_difference']:.2g}")
    if result["top1_accuracy"] is not None:
        more.append(f"top-1 {result['top1_accuracy']:.2%}")
    text += "" if result["passed"] else "  FAILED"
    text += f"\n{'':<25}{'  '.join(more)}" if more else ""
    if "quantisation" in result:
        text += "\n" + onnx_int8.describe(result["quantisation"], result["passed"])
    return text


def _metadata(config: Config, trained: Trained, names: list[str], crop: EvalCrop) -> dict[str, Any]:
    """Returns what users of the files need to know, and the files' origin."""
    state, model = trained.state, trained.model
    normalise = model.get_layer("normalization")
    size = model.input_shape[1]
    settings = trained.settings
    return {
        "arch": (state.get("model") or {}).get("arch", config.arch),
        "source": trained.text.rstrip("/").rpartition("/")[2],
        "weights": state.get("weights_used"),
        "weights_sha256": state.get("weights_sha256"),
        "epoch": state.get("epoch"),
        "classes": names,
        "classes_in_data": trained.class_names,
        "label_file": bool(config.label_file),
        "preprocessing": {
            "image_size": size,
            "crop": crop.to_dict(),
            "evaluation_like": config.evaluation_like,
            "layout": "NHWC",
            "channels": "RGB",
            "range": [0, 255],
            "mean": normalise.mean,
            "std": normalise.std,
            "inside": "normalisation; with image_bytes also decoding, crop and resizing",
        },
        "data": state.get("data"),
        "accuracy": {
            "best_of_the_run": state.get("best"),
            "metrics": state.get("metrics"),
            "of_these_weights": state.get("score") is not None,
            "of_such_images": trained.evaluated_on(size, crop),
        },
        "training": settings and without_places(settings),
        "versions": {package: _version(package) for package in ("tensorflow", "keras", "tf2onnx")},
    }


def _version(package: str) -> str | None:
    if package == "tensorflow":
        return tf.__version__
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
