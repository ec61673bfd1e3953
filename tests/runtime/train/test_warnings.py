"""Warnings about a run that goes wrong: real runs that cause them, and how they are computed."""

import math

import numpy as np
import pytest
import tensorflow as tf

from convoy.runtime.builders.inputs import build_loader
from convoy.runtime.settings.config import Config
from convoy.runtime.train.batch_statistics import StatisticsComparison
from convoy.runtime.train.new_state import new_state
from convoy.runtime.train.warnings import guessing
from convoy.utils.optim.losses import binary_cross_entropy, cross_entropy
from convoy.utils.text import warning
from main import main


@pytest.fixture
def run(small_run, tmp_path, capfd):
    """Runs the training on `data`; returns its output joined to one line."""

    def start(data, *more):
        flags = [*small_run, "--data_dir", data, "--model_dir", tmp_path / "run", *more]
        assert main([str(flag) for flag in flags]) == 0
        printed = capfd.readouterr()
        assert all(len(x) < 80 for x in printed.out.splitlines() if x.startswith("WARNING"))
        return " ".join((printed.out + printed.err).split())

    return start


FAST = ("--optimizer", "adamw", "--lr_init", "0.003", "--lr_base_batch", "0",
        "--lr_decay", "cosine", "--epsilon", "1e-7", "--warmup_epochs", "0",
        "--max_epochs", "4", "--image_size", "32", "--weight_init", "fan_in",
        "--crop_area_min", "0.35", "--stochastic_depth", "0", "--log_steps", "99")  # fmt: skip


@pytest.mark.slow
def test_a_bad_evaluation_due_to_batch_norm_is_blamed_on_batch_norm(run, tints):
    text = run(tints, *FAST, "--bn_momentum", "0.999", "--lr_init", "0.02")
    assert text.count("batch norm spoils the evaluation: 128 of its images score") == 1
    assert "lower --bn_momentum (it is 0.999)" in text
    assert "nothing is learnt" not in text


@pytest.mark.slow
def test_a_run_that_learns_well_gets_no_warning(run, tints):
    text = run(tints, *FAST, "--bn_momentum", "0.9")
    assert "WARNING" not in text


@pytest.mark.slow
def test_a_loss_that_does_not_fall_is_warned_of_once(run, tiny):
    more = ("--lr_init", "0", "--weight_decay", "0", "--warmup_epochs", "0", "--max_epochs", "2")
    text = run(tiny, *more, "--steps_per_epoch", "50", "--image_size", "32")
    assert text.count("nothing is learnt") == 1
    assert "after 1 of 2 epochs the training loss is 2.3" in text
    assert "guessing gives 2.29" in text
    assert "--lr_init 0;" in text
    assert text.count("never the answer in the last evaluation") == 1


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_the_loss_of_guessing_is_that_of_answering_the_class_shares(loss, smoothing):
    """`guessing` also returns the lowest possible loss, which the labels themselves reach."""
    labels = np.repeat([0, 1, 2], [70, 20, 10])
    shares = np.bincount(labels) / 100
    found, lowest = guessing(Config(loss=loss, label_smoothing=smoothing), shares)
    targets = np.eye(3)[labels] * (1 - smoothing) + smoothing / 3
    of = cross_entropy if loss == "softmax" else binary_cross_entropy

    def logits(p):
        p = np.clip(p, 1e-9, 1 - 1e-9)
        return np.log(p) if loss == "softmax" else np.log(p / (1 - p))

    for answers, want in ((np.broadcast_to(targets.mean(0), (100, 3)), found), (targets, lowest)):
        got = of(tf.constant(logits(answers)), tf.constant(labels), smoothing)
        assert np.mean(got) == pytest.approx(want, abs=1e-5)


def test_mixing_raises_the_lowest_loss_and_rules_out_a_bound_for_bce():
    plain, mixed = (guessing(Config(mixup_alpha=a), np.full(8, 1 / 8)) for a in (0.0, 0.4))
    assert plain[0] == mixed[0] == pytest.approx(math.log(8))
    assert plain[1] < mixed[1] < mixed[0]
    assert guessing(Config(mixup_alpha=0.4, loss="bce"), np.full(8, 1 / 8)) is None


def test_comparing_batch_norm_statistics_leaves_the_model_unchanged(tiny):
    config = Config(arch="efficientnet-test", image_size=32, data_dir=str(tiny), eval_batch_size=8)
    data = build_loader(config, "validation", num_classes=10)
    model = new_state(config, 10).model
    before = [v.numpy() for v in model.variables]
    running, batch, images = StatisticsComparison(model, data, use_xla=False)()
    assert images == 53
    assert 0 <= running <= 1
    assert 0 <= batch <= 1
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())


SCRIPT = """
from convoy.runtime.train.batch_statistics import StatisticsComparison
from convoy.runtime.builders.inputs import build_loader
from convoy.runtime.settings.config import Config
from convoy.runtime.train.new_state import new_state
from convoy.utils.distributed import ranks
ranks.init()
config = Config(arch="efficientnet-test", image_size=32, data_dir={data!r}, eval_batch_size=8)
data = build_loader(config, "validation", num_classes=10)
running, batch, images = StatisticsComparison(new_state(config, 10).model, data, False)()
print(f"found {{running * images:.6f}} {{batch:.6f}} {{images}}", flush=True)
"""


@pytest.mark.slow
def test_two_ranks_get_the_same_comparison_of_batch_norm_statistics(convoy, script, tiny):
    path = script(SCRIPT.format(data=str(tiny)))
    (alone,) = [x.split()[1:4] for x in convoy(script=path).out.splitlines() if "found" in x]
    text = convoy(script=path, np=2).text
    one, two = (
        line.partition("found ")[2].split() for line in text.splitlines() if "found" in line
    )
    assert one[:3] == two[:3]
    assert (one[0], one[2]) == (alone[0], alone[2])


def test_warnings_are_wrapped_at_80_columns():
    text = warning("some words of a long text " * 20 + "/a/path/" + 90 * "x")
    lines = text.splitlines()
    assert lines[0].startswith("WARNING: some words")
    assert all(len(line) < 80 for line in lines if "xxx" not in line)
