"""Files that Convoy wrote are told from others."""

import pytest

from convoy.utils.own_files import is_own
from convoy.utils.pages.page import environment


def test_every_page_is_known(tmp_path):
    page = tmp_path / "page.html"
    base = environment().from_string('{% extends "base.html.j2" %}{% block title %}x{% endblock %}')
    page.write_text(base.render())
    assert is_own(page, "page")
    page.write_text("<!doctype html><title>x</title>")
    assert not is_own(page, "page")


@pytest.mark.parametrize("kind", ["page", "log", "settings", "benchmark.json"])
def test_where_nothing_is_nothing_can_be_lost(tmp_path, kind):
    assert is_own(tmp_path / "none", kind)
    assert is_own(tmp_path, kind)
    (tmp_path / "empty").touch()
    assert is_own(tmp_path / "empty", kind)


def test_the_end_of_a_long_file_is_read(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    rows = [f"{i:x}" * 3 for i in range(200_000)]
    parquet.write_table(pyarrow.table({"path": rows, "probability_1": rows}), tmp_path / "ours")
    parquet.write_table(pyarrow.table({"path": rows, "label": rows}), tmp_path / "theirs")
    assert (tmp_path / "ours").stat().st_size > 2**17
    assert is_own(tmp_path / "ours", "predictions.parquet")
    assert not is_own(tmp_path / "theirs", "predictions.parquet")
