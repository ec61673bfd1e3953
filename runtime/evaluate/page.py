"""Writes the files of an evaluation report: numbers as JSON and CSV, and a page to look at."""

from __future__ import annotations

import base64
import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convoy.dataloader.sources.source import Source
from convoy.runtime.evaluate.plots import classes_a_pixel, plots
from convoy.runtime.evaluate.result import Result
from convoy.runtime.evaluate.side_by_side import MOST
from convoy.runtime.settings.config import Config
from convoy.utils import strict_json
from convoy.utils.classification import (
    Confusion,
    Pair,
    bootstrap_difference,
    bootstrap_interval,
    by_threshold,
    confused_pairs,
)
from convoy.utils.files import Remote, naming, path_of, write_atomically
from convoy.utils.pages.page import write_page
from convoy.utils.pages.plots import save_plots
from convoy.utils.text import UTF8

TABLES = ("per_class", "confusion", "predictions")
PAIRS, PICTURES = 12, 3  # confused pairs on the page, and examples of each
PAIRS_IN_JSON = 100
WHOLE_MATRIX = 2000  # classes up to which confusion.csv has all cells: 8 MB of text
THRESHOLDS = np.linspace(0, 1, 21)


def report_folder(config: Config) -> Path | Remote:
    """Returns `--report_dir`, or otherwise `eval_report` in the run's folder."""
    return path_of(config.report_dir or path_of(config.model_dir) / "eval_report")


def write_report(config: Config, results: Sequence[Result], source: Source) -> Path | Remote:
    """Writes the report into `report_folder`, and replaces an earlier one.

    Args:
        config: the config of the first evaluation.
        results: one per evaluation, all for the same examples.
        source: the source of the examples, for pictures.

    Returns:
        The folder.
    """
    folder = report_folder(config)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_after(folder, len(results))
    evaluations = [_numbers(result, results[0]) for result in results]
    for number, (result, numbers) in enumerate(zip(results, evaluations, strict=True), 1):
        ending = f"-{number}.csv" if number > 1 else ".csv"
        numbers["files"] = _write_tables(folder, ending, result, source)
    facts = {
        "data_dir": config.data_dir,
        "dataset": config.dataset,
        "labels": config.eval_labels or "stored",
        "images": source.num_examples,
        "evaluated": len(results[0].index),
    }
    text = strict_json.dumps({"data": facts, "evaluations": evaluations}, indent=1)
    write_atomically(folder / "metrics.json", text + "\n")
    drawn = plots(results)
    save_plots(folder, drawn.items())
    write_page(
        folder / "report.html",
        "eval_report.html.j2",
        facts=facts,
        results=results,
        evaluations=evaluations,
        plots=drawn,
        classes_a_pixel=classes_a_pixel(len(results[0].class_names)),
        names=[_numbered(i, name) for i, name in enumerate(results[0].class_names)],
        pairs=_pairs(results, source),
    )
    if len(results) > 1:
        _print_table(results, evaluations)
    print(f"wrote {folder / 'report.html'}", flush=True)
    return folder


def _remove_after(folder: Path | Remote, count: int) -> None:
    """Removes surplus files of an earlier report with more evaluations."""
    for number in range(count + 1, MOST + 1):
        for name in (*(f"{kind}-{number}.csv" for kind in TABLES), f"confusion-{number}.png"):
            (folder / name).unlink(missing_ok=True)


def _numbered(i: int, name: str) -> str:
    """Numbers a class's name: several classes may have the same, like ImageNet's two cranes."""
    return name if name == str(i) else f"{i} {name}"


def _numbers(result: Result, first: Result) -> dict[str, Any]:
    """Returns the entry of an evaluation in metrics.json."""
    coverage, accuracy = by_threshold(result.confidence, result.right, THRESHOLDS)
    found = result.calibration
    numbers: dict[str, Any] = {
        "name": result.name,
        "weights": result.text,
        "image_size": result.image_size,
        "figures": result.figures,
        "top1": float(result.right.mean()),
        "top1_interval_95": bootstrap_interval(result.right),
        "top1_stored_labels": result.stored,
        "macro": result.by_class.means(),
        "weighted": result.by_class.means(weighted=True),
        "ece": found.ece,
        "mce": found.mce,
        "mean_confidence": float(result.confidence.mean()),
    }
    if result is not first:
        numbers["top1_minus_first"] = numbers["top1"] - float(first.right.mean())
        numbers["top1_minus_first_interval_95"] = bootstrap_difference(result.right, first.right)
    bins = zip(found.edges[:-1], found.count, found.confidence, found.accuracy, strict=True)
    numbers["calibration_bins"] = _dicts(("above", "count", "confidence", "accuracy"), bins)
    rows = zip(THRESHOLDS, coverage, accuracy, strict=True)
    numbers["by_confidence"] = _dicts(("at_least", "coverage", "accuracy"), rows)
    pairs = confused_pairs(result.confusion, PAIRS_IN_JSON)
    numbers["confused_pairs"] = [pair._asdict() for pair in pairs]
    return numbers


def _write_tables(
    folder: Path | Remote, ending: str, result: Result, source: Source
) -> dict[str, str]:
    """Writes an evaluation's CSV files; returns their names."""
    files = {kind: kind + ending for kind in TABLES}
    each, names = result.by_class, result.class_names
    columns = (each.support, each.predicted, each.precision, each.recall, each.f1)
    head = ("class", "name", "support", "predicted", "precision", "recall", "f1")
    rows = ((i, name, *(c[i] for c in columns)) for i, name in enumerate(names))
    _write_csv(folder / files["per_class"], head, rows)
    _write_csv(folder / files["confusion"], *_confusion_table(result.confusion, names))
    places = (source.locate(int(i)) for i in result.index)
    answers = zip(places, result.label, result.predicted, result.confidence, strict=True)
    _write_csv(
        folder / files["predictions"],
        ("file", "byte", "label", "predicted", "confidence"),
        ((*place, *answer) for place, *answer in answers),
    )
    return files


def _confusion_table(found: Confusion, names: Sequence[str]) -> tuple[Iterable, Iterable]:
    """Returns head and rows of confusion.csv: the matrix, or the nonzero cells of a large one."""
    if found.classes > WHOLE_MATRIX:
        columns = (column.tolist() for column in (found.label, found.predicted, found.count))
        return ("true", "predicted", "count"), zip(*columns, strict=True)
    rows = enumerate(zip(names, found.matrix, strict=True))
    return (
        ("true", "name", *range(found.classes)),
        ((i, name, *counts.tolist()) for i, (name, counts) in rows),
    )


def _dicts(keys: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(keys, row, strict=True)) for row in rows]


def _write_csv(path: Path | Remote, head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> None:
    def cell(value: Any) -> Any:
        if isinstance(value, float):  # includes NumPy's float64
            return "" if math.isnan(value) else f"{value:.6f}"
        return value

    with naming(path), path.open("w", newline="", **UTF8) as file:
        # with our own line ends, it quotes cells with any kind of line end
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(map(cell, row) for row in rows)


def _pairs(results: Sequence[Result], source: Source) -> list[dict[str, Any]]:
    """Returns the first evaluation's most confused pairs.

    Each has its count in each evaluation, and the most confident mistakes.
    """
    from convoy.runtime.predict.labeller import thumbnail
    from convoy.runtime.predict.tensorflow_engine import decoder  # imports TensorFlow

    first = results[0]
    decode = decoder(first.image_size, first.crop)
    found = []
    for pair in confused_pairs(first.confusion, PAIRS):
        these = np.flatnonzero(_of(pair, first))
        surest = these[np.argsort(-first.confidence[these], kind="stable")][:PICTURES]
        pictures = []
        for i in surest:
            number = int(first.index[i])
            encoded, _ = source.parse(source.read(np.array([number]))[0], 0)
            jpeg = base64.b64encode(thumbnail(decode(encoded))).decode()
            text = f"{source.describe(number)}, confidence {first.confidence[i]:.0%}"
            pictures.append({"jpeg": jpeg, "text": text, "confidence": first.confidence[i]})
        counts = [int(np.sum(_of(pair, result))) for result in results]
        found.append({"pair": pair, "counts": counts, "pictures": pictures})
    return found


def _of(pair: Pair, result: Result) -> np.ndarray:
    """Returns bool `(N,)`: which answers are this mistake."""
    return (result.label == pair.label) & (result.predicted == pair.predicted)


def _print_table(results: Sequence[Result], evaluations: Sequence[dict[str, Any]]) -> None:
    width = max(len(result.name) for result in results)
    for result, numbers in zip(results, evaluations, strict=True):
        low, high = numbers["top1_interval_95"]
        print(
            f"{result.name:<{width}}  top-1 {numbers['top1']:.4f} ({low:.4f} to {high:.4f})"
            f"  top-5 {result.figures['eval_accuracy_top_5']:.4f}  ECE {numbers['ece']:.4f}",
            flush=True,
        )
