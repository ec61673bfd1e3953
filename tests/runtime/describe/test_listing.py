"""`--mode list`: its table and `--pattern`. Needs no TensorFlow."""

import pytest

from convoy.model.catalog import get_arch, list_archs
from convoy.runtime.command_line.cli import parse
from convoy.runtime.describe.listing import list_architectures
from convoy.runtime.settings.recipes import expected_top1


@pytest.fixture
def listed(capsys, monkeypatch):
    """Runs the mode in 80 columns; returns the fields of each line by architecture."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(pattern=None):
        figures = list_architectures(pattern)
        lines = capsys.readouterr().out.splitlines()
        assert all(len(line) <= 80 and "…" not in line for line in lines)
        assert figures == {"architectures": len(lines) - 1}
        return {line.split()[0]: line.split(maxsplit=6) for line in lines[1:]}

    return run


def test_every_available_architecture_is_listed_with_its_figures(listed):
    rows = listed()
    assert list(rows) == [name for name in list_archs() if get_arch(name).available]
    for name, row in rows.items():
        arch = get_arch(name)
        assert row[1] == str(arch.resolution)
        assert float(row[2]) == pytest.approx(arch.params_1000 / 1e6, abs=0.006)
        assert float(row[3]) == pytest.approx(arch.trainable_1000 / 1e6, abs=0.006)
        expected = expected_top1(name)
        assert len(row) == (7 if expected else 5)
        if expected:
            assert float(row[5]) == pytest.approx(expected[0], abs=0.06)
            assert row[6].strip() == expected[1]
    assert rows["resnet50"][4] == "4.09"


def test_a_pattern_selects_architectures(listed):
    assert list(listed("resnet1??")) == ["resnet101", "resnet152", "resnet18d"]
    assert list(listed("*net-b[0-2]")) == [f"efficientnet-b{i}" for i in range(3)]
    assert parse(["--mode", "list", "--pattern", "resnet*"]).pattern == "resnet*"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--mode", "list", "--pattern", "vgg*"], "--pattern vgg* matches no architecture"),
        (["--mode", "summary", "--pattern", "resnet*"], "--pattern is for --mode list"),
        (["--pattern", "resnet*"], "--pattern is for --mode list"),
    ],
)
def test_a_pattern_that_matches_nothing_or_has_no_effect_is_refused(args, message, refused):
    assert message in refused(*args)
