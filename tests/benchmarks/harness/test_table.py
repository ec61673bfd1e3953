"""The table of a row and the verdicts on its goals."""

from benchmarks.harness.row import Entry, Goal, Row
from benchmarks.harness.table import markdown


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
    text = markdown(row, {"turns": turns})
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
    text = markdown(row, {"turns": turns})
    assert "- b ÷ d, the best of each: **0.750 (0.500–1.00)**, goal ≥ 1: missed\n" in text
    assert "- a ÷ c (ms), the best of each: **0.500 (0.091–1.00)**, goal ≤ 1: met\n" in text
