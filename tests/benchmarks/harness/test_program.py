"""Benchmarks that are commands of their own."""

import os
import time

from benchmarks.harness.machine import measured_on
from benchmarks.harness.program import Program


def test_a_programs_table_and_figures_are_read_from_its_output(tmp_path, monkeypatch):
    script = "print('| a |'); print('|---|'); print(); print('{\"a\": 1}')"
    (tmp_path / "program.py").write_text(script)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    table, found = Program("name", "title", "program").run()
    assert table == "| a |\n|---|\n"
    assert found["figures"] == {"a": 1}
    assert found["row"] == "name"
    cores, today = len(os.sched_getaffinity(0)), time.strftime("%Y-%m-%d")
    assert measured_on(found["machine"]).endswith(f", {cores} cores, {today}*\n")
