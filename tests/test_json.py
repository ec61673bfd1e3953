"""All JSON that we write is strict: only Python's parser accepts NaN and Infinity."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from convoy.runtime import run_log
from convoy.utils import strict_json
from convoy.utils.logging import make_json_logger
from main import main

ROOT = Path(__file__).parents[1]
# Messages between our processes, and text for users.
OTHERS = {
    *(
        "utils/strict_json.py",
        "utils/watchdog/heartbeats.py",
        "utils/watchdog/hub.py",
        "runtime/evaluate/relabel.py",
    ),
    *(
        "benchmarks/harness/turns.py",
        "benchmarks/harness/contender.py",
        "benchmarks/scaling/weak_scaling.py",
    ),
    "benchmarks/scaling/exchange.py",
    # Scripts as users of Keras and timm would write them.
    *("benchmarks/first_run/keras_script.py", "benchmarks/first_run/timm_script.py"),
}


def refuse(name):
    raise AssertionError(f"{name} is not JSON")


def documents(folder):
    """Yields (path, text) of each JSON document below a folder."""
    for path in sorted(folder.rglob("*.json*")):
        text = path.read_text(encoding="utf-8")
        lines = path.name.endswith(".jsonl") or text.startswith("DLLL ")
        for part in text.splitlines() if lines else [text]:
            yield path, part.removeprefix("DLLL ")


def test_nan_and_infinity_become_null():
    value = {"a": math.nan, "b": [np.float32("inf"), np.float64(0.5)], 3: np.arange(2), "d": None}
    assert strict_json.dumps(value) == '{"a": null, "b": [null, 0.5], "3": [0, 1], "d": null}'
    assert strict_json.dumps({"t": (np.array([1.0, np.nan]), True, "x")}) == (
        '{"t": [[1.0, null], true, "x"]}'
    )


def test_all_json_is_written_by_strict_json():
    for folder in ("runtime", "utils", "dataloader", "model", "convoy", "benchmarks", "scripts"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.relative_to(ROOT).as_posix() not in OTHERS:
                assert not re.search(r"(?<!strict_)json\.dumps?\(", path.read_text()), path


def test_a_run_too_short_to_measure_reports_unknown_figures_and_strict_json(tmp_path, capsys):
    log = make_json_logger(tmp_path / "log.json")
    run_log.summarise(log, {"avg_exp_per_second_training": math.nan, "training_loss": math.nan})
    log.close()
    said = capsys.readouterr().out
    assert re.search("avg_exp_per_second_training +unknown: too few steps to measure\n", said)
    assert re.search("training_loss +not a number\n", said)
    assert [json.loads(text, parse_constant=refuse) for _, text in documents(tmp_path)]


def test_files_of_training_evaluation_and_prediction_are_strict_json(
    trained, tiny, photos, tmp_path
):
    flags = ["--model_dir", str(trained.model_dir), "--data_dir", str(tiny)]
    report = ["--report", "--report_dir", str(tmp_path / "report"), "--eval_batch_size", "16"]
    assert (
        main(["--mode", "eval", *flags, *report, "--log_filename", str(tmp_path / "l.json")]) == 0
    )
    predict = ["--predict_dir", str(photos), "--output", str(tmp_path / "labels")]
    assert main(["--mode", "predict", *flags, *predict]) in (0, 3)
    found = [*documents(Path(trained.model_dir)), *documents(tmp_path)]
    for path, text in found:
        try:
            json.loads(text, parse_constant=refuse)
        except (ValueError, AssertionError) as error:
            pytest.fail(f"{path}: {error}: {text[:200]}")
    names = {path.name for path, _ in found}
    assert {"log.json", "state.json", "best.json", "metrics.json", "labels.jsonl"} <= names
