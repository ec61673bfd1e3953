"""Tables in pages."""

import pytest

from benchmarks.harness.pages import page_of, write


def test_a_new_table_replaces_the_old_one(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- one -->\nold\n<!-- end of one -->\nb\n")
    write("one", "| new |\n", page)
    assert page.read_text() == "a\n<!-- one -->\n| new |\n<!-- end of one -->\nb\n"
    with pytest.raises(SystemExit, match="has no place for two"):
        write("two", "", page)
    with pytest.raises(SystemExit, match="has a place for two"):
        page_of("two")
