"""Quantises an exported ONNX file to 8 bits, and leaves in float what does not bear it.

Ranges come from training images. The method that makes them, and the layers that stay in float, are
chosen by the images of the comparison, and only as far as the bounds ask for it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convoy.runtime.export.formats import FORMATS
from convoy.runtime.export.quantised_graph import METHODS, Layer, QuantisedGraph
from convoy.runtime.export.sample_images import BATCH, Sample
from convoy.utils.machine.device import multiplies_int8

NAME = "onnx-int8"
MOST_IN_FLOAT = 0.5
"""The largest part of the multiply-adds in float32: with more, 8 bits save too little."""
_RANKING_IMAGES = 32
_ROWS = 10  # of the table for the terminal


@dataclass(frozen=True)
class _Trial:
    """A quantised graph that was compared with the Keras model.

    Attributes:
        agreement: fraction of images with the same top-1 class.
        error: see `_error`.
        objection: what is wrong with it; None if nothing is.
    """

    method: str
    model: Any
    left: Sequence[Layer]
    agreement: float
    error: float
    objection: str | None

    @property
    def merit(self) -> tuple[float, float]:
        return self.agreement, -self.error


def quantise(source: Path, path: Path, sample: Sample) -> dict[str, Any]:
    """Writes the 8-bit copy of a float32 export, the best that was found if none is good enough.

    Args:
        source: the float32 export.
        path: the copy.
        sample: training images for the ranges, and the images and logits to be judged by. Without
            logits, all layers are quantised: that shows how fast it is.

    Returns:
        How it was quantised, for `export.json`; `layers` is empty unless some had to stay in float.
    """
    import onnx

    reduced = multiplies_int8() is not True
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        graph = QuantisedGraph(source, Path(folder), reduced)
        facts: dict[str, Any] = {
            "calibration_images": len(sample.calibration),
            "weight_bits": 7 if reduced else 8,
            "layers": [],
        }
        if sample.logits is None:
            ranges = graph.ranges("min-max", sample.calibration)
            onnx.save(graph.quantised(ranges), str(path))
            return facts | {"calibration": "min-max", "float_layers": []}
        search = _Search(graph, sample, sample.logits)
        best, facts["layers"] = search.best()
        onnx.save(best.model, str(path))
    return facts | {
        "calibration": best.method,
        "calibrations": search.by_method,
        "float_layers": [layer.name for layer in best.left],
        "float_share": sum(layer.work for layer in best.left) / graph.work,
    }


class _Search:
    """Looks for the copy with the most in 8 bits that keeps within the bounds.

    Attributes:
        by_method: agreement with the Keras model by calibration, with all layers in 8 bits.

    Args:
        graph: the graph.
        sample: the images.
        wanted: the Keras model's logits for these.
    """

    def __init__(self, graph: QuantisedGraph, sample: Sample, wanted: np.ndarray) -> None:
        self._graph, self._sample, self._wanted = graph, sample, wanted
        self._pixels = np.stack(sample.images)
        self.by_method: dict[str, float] = {}

    def best(self) -> tuple[_Trial, list[dict[str, Any]]]:
        """Returns the copy, and the table of layers; the table is empty if all have 8 bits."""
        ranges = {m: self._graph.ranges(m, self._sample.calibration) for m in METHODS}
        trials = [self._try(method, ranges[method]) for method in METHODS]
        self.by_method = {trial.method: trial.agreement for trial in trials}
        best = max(trials, key=lambda trial: trial.merit)  # of equals, the first
        if best.objection is None:
            return best, []
        print(f"{NAME}: {best.objection}\n  looking for the layers that cause it", flush=True)
        errors = self._errors(ranges[best.method])
        order = sorted(errors, key=lambda layer: -errors[layer])
        table = [
            {"layer": one.name, "error": errors[one], "share": one.work / self._graph.work}
            for one in order
        ]
        for left in self._ever_more(order):
            trial = self._try(best.method, ranges[best.method], left)
            if trial.objection is None or trial.merit > best.merit:
                best = trial
            if trial.objection is None:
                break
        return best, table

    def _ever_more(self, order: Sequence[Layer]) -> Iterator[list[Layer]]:
        """Yields the first layer, the first two, four and so on, at last all that may be float."""
        count, room = 1, MOST_IN_FLOAT * self._graph.work
        while count < len(order) and sum(layer.work for layer in order[:count]) <= room:
            yield list(order[:count])
            count *= 2
        most: list[Layer] = []
        for layer in order:
            if sum(one.work for one in most) + layer.work <= room:
                most.append(layer)
        yield most

    def _try(self, method: str, ranges: Any, left: Sequence[Layer] = ()) -> _Trial:
        model = self._graph.quantised(ranges, left)
        logits = _logits(model, self._pixels)
        agreement = float(np.mean(logits.argmax(-1) == self._wanted.argmax(-1)))
        objection = FORMATS[NAME].objection(agreement, self._sample.lost(self._wanted, logits))
        return _Trial(method, model, left, agreement, _error(logits, self._wanted), objection)

    def _errors(self, ranges: Any) -> dict[Layer, float]:
        """Returns the error when only one layer has 8 bits, for each layer."""
        places = np.linspace(0, len(self._pixels) - 1, min(_RANKING_IMAGES, len(self._pixels)))
        some = np.unique(places.round().astype(int))
        return {
            layer: _error(
                _logits(self._graph.with_one(ranges, layer), self._pixels[some]),
                self._wanted[some],
            )
            for layer in self._graph.layers
        }


def _logits(model: Any, pixels: np.ndarray) -> np.ndarray:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    batches = (pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH))
    return np.concatenate([session.run(["logits"], {"images": some})[0] for some in batches])


def _error(logits: np.ndarray, wanted: np.ndarray) -> float:
    """Returns the root mean square of the differences, over the standard deviation of `wanted`."""
    error = np.sqrt(np.mean((np.float64(logits) - wanted) ** 2)) / max(float(wanted.std()), 1e-12)
    return float(error) if np.isfinite(error) else float("inf")


def describe(facts: dict[str, Any], passed: bool) -> str:
    """Describes how a file was quantised, in lines of at most 80 columns.

    Args:
        facts: from `quantise`, with a judgement.
        passed: whether it is good enough; if not, a table of the layers tells more.
    """
    left, share = len(facts["float_layers"]), facts["float_share"]
    text = (
        f"{'':<25}calibrated by {facts['calibration']};"
        f" weights have {facts['weight_bits']} bits\n"
        f"{'':<25}in float: {left} layers with {share:.1%} of the multiply-adds"
    )
    if passed or not facts["layers"]:
        return text
    lines = [text, f"{'':<2}{'layer':<44}{'logits move by':>16}{'multiply-adds':>16}"]
    for row in facts["layers"][:_ROWS]:
        name = row["layer"] if len(row["layer"]) <= 43 else row["layer"][:42] + "…"
        lines.append(f"{'':<2}{name:<44}{row['error']:>16.2%}{row['share']:>16.1%}")
    if (more := len(facts["layers"]) - _ROWS) > 0:
        lines.append(f"{'':<2}and {more} more, see export.json")
    lines.append(f"{'':<2}(if only this layer is quantised; of the logits' standard deviation)")
    return "\n".join(lines)
