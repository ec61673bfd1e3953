"""`--mode summary --memory`: its table, and what it says about batches."""

import pytest

from convoy.runtime.describe import memory_table
from convoy.runtime.describe.memory_table import show_memory
from tests.runtime.summary_settings import settings

GIB = 2**30


@pytest.fixture
def shown(capsys, monkeypatch):
    """Runs the mode with 4 GiB free; returns its figures and its lines."""
    monkeypatch.setattr(memory_table, "available_memory", lambda on_host: 4 * GIB)

    def run(*flags):
        given = ("--arch", "efficientnet-test", "--memory", *flags)
        figures = show_memory(settings(*given))
        return figures, capsys.readouterr().out.splitlines()

    return run


def row(lines, start):
    return next(line for line in lines if line.startswith(start)).removeprefix(start).split()


def test_the_parts_add_up_and_each_value_has_its_total_and_batch(shown):
    figures, lines = shown("--image_size", "224", "--train_batch_size", "256")
    assert "efficientnet-test, 224 px, batch 256, rmsprop, --recompute none" in lines[0]
    place = lines.index(next(line for line in lines if line.startswith("total")))
    parts = [line.split()[-2] for line in lines[3:place]]
    total = figures["memory"] / GIB
    assert sum(float(part) for part in parts if part != "-") == pytest.approx(total, abs=0.05)
    assert row(lines, "total")[0] == f"{total:.2f}"
    rows = {how: row(lines, f"{how} ") for how in ("none", "norms", "blocks")}
    assert rows["none"] == [
        f"{total:.2f}",
        str(figures["largest_batch"]),
        f"{figures['memory_on_gpu'] / GIB:.2f}",
    ]
    batches = [int(values[1]) for values in rows.values()]
    assert batches[0] == min(batches)


def test_auto_means_the_largest_batch_and_the_least_recomputation(shown):
    figures, lines = shown("--image_size", "224", "--train_batch_size", "auto")
    assert f"batch {figures['largest_batch']}," in lines[0]
    assert 0.9 * 0.8 * 4 * GIB < figures["memory"] <= 0.8 * 4 * GIB
    assert "--recompute none" in shown("--train_batch_size", "8", "--recompute", "auto")[1][0]
    norms = int(row(lines, "norms ")[1])
    flags = ("--image_size", "224", "--train_batch_size", str(norms), "--recompute", "auto")
    assert "--recompute norms" in shown(*flags)[1][0]


def test_sixteen_bits_and_a_number_of_blocks_are_shown(shown):
    _, lines = shown("--use_amp", "--recompute", "2")
    assert "GPU, float16" in lines[2]
    assert row(lines, "2 ")


def test_a_frozen_backbone_takes_less(shown):
    whole, _ = shown("--image_size", "224")
    frozen, _ = shown("--image_size", "224", "--freeze_backbone")
    assert frozen["largest_batch"] > 2 * whole["largest_batch"]


def test_memory_is_refused_in_other_modes(refused):
    assert "--memory is for --mode summary" in refused("--memory", "--mode", "list")
    assert "--memory is for --mode summary" in refused("--memory")


def test_more_blocks_than_there_are_is_refused(refused):
    flags = ("--mode", "summary", "--arch", "efficientnet-test", "--recompute", "99")
    assert "--recompute 99: efficientnet-test has" in refused(*flags)
