"""The CSV files of an evaluation report."""

import numpy as np
import pytest

from convoy.runtime.evaluate import page as eval_page
from convoy.utils.classification import confusion
from tests.runtime.csv_rows import csv_rows


@pytest.mark.parametrize("whole", [3, 2], ids=["matrix", "cells"])
def test_confusion_csv_of_many_classes_lists_only_cells_that_are_not_0(monkeypatch, whole):
    monkeypatch.setattr(eval_page, "WHOLE_MATRIX", whole)
    found = confusion(np.array([0, 2, 2, 2]), np.array([0, 1, 1, 2]), 3)
    head, rows = eval_page._confusion_table(found, ["a", "b", "c"])
    if whole == 3:
        assert head == ("true", "name", 0, 1, 2)
        assert list(rows) == [(0, "a", 1, 0, 0), (1, "b", 0, 0, 0), (2, "c", 0, 2, 1)]
    else:
        assert head == ("true", "predicted", "count")
        assert list(rows) == [(0, 0, 1), (2, 1, 2), (2, 2, 1)]


@pytest.mark.parametrize("name", ["two\nlines", "cr\rhere", 'q"uote', "a,b", "both\r\n", "\ud800"])
def test_a_file_name_with_separators_stays_in_its_csv_cell(tmp_path, name):
    eval_page._write_csv(tmp_path / "some.csv", ("file", "label"), [(name, 1), ("plain", 2)])
    shown = name.encode(errors="backslashreplace").decode()
    assert csv_rows(tmp_path / "some.csv") == [
        {"file": shown, "label": "1"},
        {"file": "plain", "label": "2"},
    ]
