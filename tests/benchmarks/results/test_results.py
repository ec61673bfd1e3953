"""docs/results.md is made from benchmarks/results/results.yaml and has no empty columns."""

import pytest
import yaml

from benchmarks.results.__main__ import DATA, PAGE, markdown

TABLE = {"section": "A", "columns": ["GPUs", "theirs"], "ours": ["speed", "hours"]}
TABLE |= {"rows": [["1", "10"], ["8", "80"]], "measured": {}}


def test_the_page_equals_the_tables_made_from_the_data():
    tables = yaml.safe_load(DATA.read_text())["tables"]
    between = PAGE.read_text().split("<!-- results -->\n")[1].split("<!-- end of results -->")[0]
    assert between == markdown(tables), "run: python -m benchmarks.results --write"
    assert sum(len(table["rows"]) for table in tables) == 110


def test_a_column_appears_with_its_first_result():
    assert "Convoy" not in markdown([TABLE])
    text = markdown([TABLE | {"measured": {1: [77.5, None]}}])
    assert text.splitlines()[2] == "| GPUs | theirs | **Convoy speed** |"
    assert text.splitlines()[4:] == ["| 1 | 10 |  |", "| 8 | 80 | 77.5 |"]


@pytest.mark.parametrize("measured", [{2: [1, 2]}, {0: [1]}])
def test_results_without_a_place_in_the_table_are_refused(measured):
    with pytest.raises(SystemExit, match=r"results\.yaml: A: row"):
        markdown([TABLE | {"measured": measured}])
