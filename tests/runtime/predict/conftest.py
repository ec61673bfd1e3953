"""Fixtures for the tests of `--mode predict`."""

import json

import pytest

from main import main
from tests.runtime.csv_rows import csv_rows


@pytest.fixture
def predict(trained, tmp_path, capsys):
    """Runs `--mode predict` in this process; returns (exit code, JSON rows, CSV rows, output)."""

    def run(folder, *args):
        output = tmp_path / "predictions"
        flags = ["--mode", "predict", "--model_dir", trained.model_dir, "--output", output]
        code = main([str(arg) for arg in (*flags, "--predict_dir", folder, *args)])
        lines = output.with_name("predictions.jsonl").read_text(encoding="utf-8").splitlines()
        table = csv_rows(output.with_name("predictions.csv"))
        rows = [json.loads(line) for line in lines]
        assert len(rows) == len(table)
        printed = capsys.readouterr()
        return code, rows, table, printed.out + printed.err

    return run
