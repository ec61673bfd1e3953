"""The table that benchmarks/costs/checkpoint.py prints."""

from benchmarks.costs.checkpoint import report

FIGURES = {"without": [20.0, 20.0, 40.0], "saving": [20.4, 20.2, 40.0], "left": [0.0, 0.0, 1.0]}


def test_shares_are_the_median_over_rounds():
    table = report(FIGURES | {"blocked": [0.102, 0.202, 4.0]}, 85.4, 50, 8)
    assert "| share of the block blocked (goal: below 2%, kept) | 1.00 (0.50-10.00) % |" in table
    assert "| whole block slower by | 1.00 (0.00-2.00) % |" in table
    assert "| blocked by it | 202 (102-4000) ms |" in table


def test_a_missed_goal_is_marked():
    table = report(FIGURES | {"blocked": [1.0, 1.0, 1.0]}, 85.4, 50, 8)
    assert "MISSED" in table
