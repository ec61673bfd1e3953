"""The notebook runs completely, and its committed outputs come from such a run."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from convoy.runtime.settings.config import Config

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "own_images.ipynb"
AS_WRITTEN = 'ARCH, SIZE, EPOCHS = "efficientnet-b0", 48, 6'
SMALL = 'ARCH, SIZE, EPOCHS = "efficientnet-test", 32, 1'


def code_cells() -> list[dict]:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def code_digest() -> str:
    """Returns the hash that scripts/run_notebook.py stores with the code that it ran."""
    text = "\0".join("".join(cell["source"]) for cell in code_cells())
    return hashlib.sha256(text.encode()).hexdigest()


def run(source: str, names: dict) -> object:
    """Runs a cell; returns the value of its last line if that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(NOTEBOOK), "exec"), names)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names)


def listings(values: list) -> list:
    """Returns the values that list the run's folder."""
    return [value for value in values if isinstance(value, list) and "config.yaml" in value]


def committed_listings() -> list:
    """Returns the listings among the committed outputs."""
    outputs = [output.get("data", {}) for cell in code_cells() for output in cell["outputs"]]
    texts = ["".join(data.get("text/plain", "")) for data in outputs]
    return listings([ast.literal_eval(text) for text in texts if text.startswith("[")])


@pytest.mark.slow
def test_every_cell_runs_on_a_small_model(keras_policy, capsys):
    cells = ["".join(cell["source"]) for cell in code_cells()]
    assert cells[0].count(AS_WRITTEN) == 1
    cells[0] = cells[0].replace(AS_WRITTEN, SMALL)
    names: dict = {"__name__": "__main__"}
    values = [run(cell, names) for cell in cells]
    assert "are wrong" in capsys.readouterr().out
    assert listings(values) == committed_listings(), "run `make notebook` again"
    classes, scores = values[-1]
    assert set(names["names"]) == {word.decode() for word in classes}
    assert scores.sum() == pytest.approx(1, abs=0.01)
    assert names["exported"]["savedmodel"]["passed"]


def test_settings_in_the_notebook_exist():
    """This notices at once when a flag is renamed."""
    known = {f.name for f in fields(Config)}
    calls = [
        node
        for cell in code_cells()
        for node in ast.walk(ast.parse("".join(cell["source"])))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "configure"
    ]
    assert len(calls) == 3
    assert {keyword.arg for call in calls for keyword in call.keywords} <= known


def test_committed_outputs_come_from_one_run_of_the_committed_cells():
    cells = code_cells()
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert len([o for o in outputs if "image/jpeg" in o.get("data", {})]) == 2
    text = "".join("".join(output.get("text", [])) for output in outputs)
    (top1,) = re.findall(r"^top-1 (\d\.\d+)$", text, re.M)
    assert float(top1) > 0.9, "run `make notebook` again: it shows a model that has learnt little"
    (listing,) = committed_listings()
    assert "report.html" in listing, "it was run without the extra report"
    assert str(ROOT) not in json.dumps(outputs)
    noted = json.loads(NOTEBOOK.read_text())["metadata"]["convoy"]["code_sha256"]
    assert noted == code_digest(), "cells changed since they were run: run `make notebook`"
