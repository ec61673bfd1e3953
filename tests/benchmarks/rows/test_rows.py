"""The rows of `make bench` refer to existing code, and their tables show what was measured."""

import importlib.util
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.__main__ import PAGES, chosen, page_of, write
from benchmarks.contenders import photographs
from benchmarks.harness import contender as worker
from benchmarks.harness import turns as harness
from benchmarks.harness.turns import Entry, Goal, Program, Row
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


def test_a_new_table_replaces_the_old_one(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- one -->\nold\n<!-- end of one -->\nb\n")
    write("one", "| new |\n", page)
    assert page.read_text() == "a\n<!-- one -->\n| new |\n<!-- end of one -->\nb\n"
    with pytest.raises(SystemExit, match="has no place for two"):
        write("two", "", page)
    with pytest.raises(SystemExit, match="has a place for two"):
        page_of("two")


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


def test_a_programs_table_and_figures_are_read_from_its_output(tmp_path, monkeypatch):
    script = "print('| a |'); print('|---|'); print(); print('{\"a\": 1}')"
    (tmp_path / "program.py").write_text(script)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    table, found = Program("name", "title", "program").run()
    assert table == "| a |\n|---|\n"
    assert found["figures"] == {"a": 1}
    assert found["row"] == "name"
    cores, today = len(os.sched_getaffinity(0)), time.strftime("%Y-%m-%d")
    assert harness.measured_on(found["machine"]).endswith(f", {cores} cores, {today}*\n")


def test_a_goal_may_be_a_measured_value_instead_of_a_ratio():
    row = Row(
        "name",
        "title",
        [Entry("a", ""), Entry("b", "")],
        [Goal("b", None, 2, "wait", at_least=False), Goal("b", "a", 0.97)],
        {"speed": "images/s", "wait": "%"},
        note="A note.",
    )
    turns = {"a": {"speed": [10.0] * 3, "wait": [0.0] * 3}}
    turns["b"] = {"speed": [9.0, 9.8, 9.9], "wait": [1.0, 3.0, 5.0]}
    text = harness.markdown(row, {"turns": turns})
    assert "- b (wait): **3.00 (1.00–5.00)**, goal ≤ 2: missed\n" in text
    assert "- b ÷ a: **0.980 (0.900–0.990)**, goal ≥ 0.97: met\n" in text
    assert text.endswith("\n\nA note.\n")


def test_a_goal_between_groups_compares_the_best_of_each():
    row = Row(
        "name",
        "title",
        [Entry(label, "") for label in "abcde"],
        [Goal(("a", "b"), ("c", "d", "e"), 1), Goal(("a", "b"), ("c", "d"), 1, "ms", False)],
    )
    # a and c have the fastest single turn; "e" was not measured
    speeds = {"a": [1, 1, 9], "b": [2, 3, 4], "c": [1, 2, 99], "d": [4, 4, 4]}
    turns = {k: {"speed": v, "ms": [10 * x for x in v]} for k, v in speeds.items()}
    text = harness.markdown(row, {"turns": turns})
    assert "- b ÷ d, the best of each: **0.750 (0.500–1.00)**, goal ≥ 1: missed\n" in text
    assert "- a ÷ c (ms), the best of each: **0.500 (0.091–1.00)**, goal ≤ 1: met\n" in text


def test_a_complete_name_selects_only_its_row():
    names = ["b0-1", "b0-16", "b4-1"]
    found = {word: [n for n in names if chosen(n, [word], names)] for word in ("b0-1", "b0", "-1")}
    assert found == {"b0-1": ["b0-1"], "b0": ["b0-1", "b0-16"], "-1": names}
    assert chosen("b4-1", ["b0-1", "b4"], names)
    assert chosen("b4-1", None, names)


def test_processor_time_includes_running_and_ended_children():
    before = worker.cpu_seconds()
    script = "import time\nwhile time.process_time() < 0.15: pass\nprint(flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    child.stdout.readline()
    living = worker.cpu_seconds()
    child.communicate(b"\n")
    assert living - before >= 0.14
    assert worker.cpu_seconds() - before >= 0.14  # also after it has ended


def test_ending_a_run_ends_its_contenders_children(tmp_path):
    python, note = tmp_path / "python", tmp_path / "child"
    python.write_text(
        f"#!/bin/sh\nsleep 300 &\necho $! > {note}.part\nmv {note}.part {note}\nwait\n"
    )
    python.chmod(0o755)
    script = (
        "import sys\n"
        "from benchmarks import __main__ as command\n"
        "from benchmarks.harness.turns import Entry, Row\n"
        "command.ROWS = [Row('one', 'one', [Entry('one', 'one:one', python=sys.argv.pop())])]\n"
        "command.main()"
    )
    run = subprocess.Popen([sys.executable, "-c", script, str(python)], cwd=harness.ROOT)
    try:
        deadline = time.monotonic() + 60
        while not note.exists():
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        run.terminate()
        assert run.wait(30) == 128 + signal.SIGTERM
        child = Path(f"/proc/{int(note.read_text())}/stat")
        # It has ended, or is a zombie where nothing reads its exit status.
        assert not child.exists() or child.read_text().rpartition(")")[2].split()[0] == "Z"
    finally:
        run.kill()
        with suppress(ProcessLookupError, FileNotFoundError):
            os.kill(int(note.read_text()), signal.SIGKILL)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "photographs"
    photographs.write(folder, count=128, classes=2)
    return folder


def two_turns(photos, module, maker, **arguments):
    """Returns what a contender measures in a new process: TensorFlow's threads are global."""
    script = (
        "import json, pathlib, sys\n"
        f"from benchmarks.contenders import {module} as module\n"
        f"module.prepared = lambda: pathlib.Path({str(photos)!r})\n"
        f"made = module.{maker}(**json.loads(sys.argv[1]))\n"
        "made.turn(2), made.turn(1)\n"
        "print(json.dumps(made.measures()))\n"
    )
    command = [sys.executable, "-c", script, json.dumps(arguments)]
    done = subprocess.run(command, cwd=harness.ROOT, check=True, timeout=250, stdout=-1)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("augmenter", ["none", "autoaugment", "randaugment"])
@pytest.mark.parametrize("maker", ["tf_image", "keras_layers"])
def test_loaders_of_other_programs_yield_batches(photos, maker, augmenter):
    two_turns(photos, "inputs", maker, augmenter=augmenter)


@pytest.mark.slow
@pytest.mark.parametrize("augmenter", ["none", "autoaugment", "randaugment"])
def test_our_loader_yields_batches(photos, augmenter):
    two_turns(photos, "inputs", "ours", augmenter=augmenter, data_backend="tfdata")


@pytest.mark.slow
@pytest.mark.parametrize("augmenter", [None, "autoaugment"])
def test_the_trainer_continues_from_turn_to_turn(photos, augmenter):
    small = {"arch": "efficientnet-test", "size": 32, "batch": 4, "augmenter": augmenter}
    assert 0 <= two_turns(photos, "e2e", "trainer", **small)["wait"] < 100
