"""Tables of what programs make of one input: who agrees, how far apart, differing rows first."""

import numpy as np
import pytest

from benchmarks.agreement.case import Case, Refused, ask, table


def test_programs_that_agree_share_a_group_and_refusals_come_last():
    def fails():
        raise ValueError("no")

    zeros, ones = np.zeros((2, 3)), np.ones((2, 3))
    programs = {"a": fails, "b": lambda: ones, "c": lambda: zeros, "d": lambda: ones.copy()}
    case = ask("x", programs, may_refuse=True)
    assert case.groups() == [["b", "d"], ["c"], ["a"]]
    what, who, far = case.row()
    assert (what, who) == ("x", "b = d; c; a: refused (ValueError)")
    assert far == "up to 1, 1 on average, 100% of the values"
    with pytest.raises(ValueError, match="no"):
        ask("x", programs)


def test_small_answers_are_shown_and_nan_equals_nan():
    case = Case("x", {"a": np.array([np.nan, 1.5]), "b": np.array([np.nan, 1.5])})
    assert not case.differs
    assert case.row() == ("x", "a = b: nan, 1.5", "")
    case = Case("x", {"a": np.array([np.nan]), "b": np.array([2.0])})
    assert case.row() == ("x", "a: nan; b: 2", "")


def test_other_sizes_are_named():
    case = Case("x", {"a": np.zeros((4, 6, 3)), "b": np.zeros((6, 4, 3)), "c": np.zeros((4, 6, 3))})
    assert case.row() == ("x", "a = c: 4 × 6; b: 6 × 4", "")


def test_within_the_tolerance_answers_agree():
    answers = {"a": np.zeros(9), "b": np.full(9, 0.1)}
    assert Case("x", answers).differs
    assert not Case("x", answers, tolerance=0.2).differs
    assert Case("x", answers | {"c": Refused("refused")}, tolerance=0.2).differs


def test_rows_that_differ_come_first():
    same = Case("same", {"a": np.zeros(1), "b": np.zeros(1)})
    other = Case("other", {"a": np.zeros(1), "b": np.ones(1)})
    lines = table([same, other]).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| other", "| same"]
