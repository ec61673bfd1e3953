"""The rows of `make bench` refer to existing code, and their tables show what was measured."""

import importlib.util
import inspect

import pytest

from benchmarks.harness.pages import PAGES, page_of
from benchmarks.harness.program import Program
from benchmarks.harness.row import Row
from benchmarks.rows.every_row import ROWS

COMPARISONS = [row for row in ROWS if isinstance(row, Row)]


def test_names_of_rows_are_unique():
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)


def test_every_row_has_its_marks_in_exactly_one_page():
    page = "".join(page.read_text() for page in PAGES.glob("*.md"))
    for row in ROWS:
        assert f"<!-- {row.name} -->" in page_of(row.name).read_text()
        assert page.count(f"<!-- {row.name} -->") == 1, row.name
        assert page.count(f"<!-- end of {row.name} -->") == 1, row.name


@pytest.mark.parametrize("row", COMPARISONS, ids=lambda row: row.name)
def test_contenders_exist_and_accept_their_arguments(row):
    labels = [entry.label for entry in row.entries]
    assert len(set(labels)) == len(labels)
    for entry in row.entries:
        module, function = entry.maker.split(":")
        made = getattr(importlib.import_module(f"benchmarks.contenders.{module}"), function)
        inspect.signature(made).bind(**entry.arguments)
    for goal in row.goals:
        for named in (goal.ours, goal.peer or goal.ours):
            assert set([named] if isinstance(named, str) else named) <= set(labels)


def test_modules_of_programs_exist():
    for row in ROWS:
        if isinstance(row, Program):
            assert importlib.util.find_spec(row.module)
