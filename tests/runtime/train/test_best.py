"""The choice of the best evaluation, and early stopping."""

import json
import math
import re
from types import SimpleNamespace

import pytest

from convoy.runtime.run_folder import checkpoint
from convoy.runtime.train.best import best_text, better_weights, judge
from main import main


def state(ema=True):
    return SimpleNamespace(best={}, waited=0, epoch=1, step=10, ema=object() if ema else None)


def values(raw, ema, metric="accuracy_top_1"):
    return {f"eval_{metric}": raw, f"eval_ema_{metric}": ema}


@pytest.mark.parametrize(
    ("metric", "name", "figures", "bests", "text"),
    [
        ("top1", "accuracy_top_1", [(0.5, 0.4), (0.5, 0.5), (0.4, 0.6)], [1, 1, 3], "60.00%"),
        ("loss", "loss", [(2.0, 1.5), (1.6, 1.7), (1.4, 3.0)], [1, 1, 3], "loss 1.4000"),
        ("macro_f1", "macro_f1", [(0.1, 0.2), (0.3, 0.1), (0.2, 0)], [1, 2, 2], "macro F1 30.00%"),
    ],
)  # fmt: skip
def test_the_best_epoch_is_chosen_by_the_metric_of_the_better_weights(
    metric, name, figures, bests, text
):
    run, waited = state(), []
    for epoch, (raw, ema) in enumerate(figures, 1):
        run.epoch = epoch
        facts, is_best = judge(run, values(raw, ema, name), {}, metric)
        assert run.best["epoch"] == bests[epoch - 1]
        assert is_best == (run.best["epoch"] == epoch)
        waited.append(facts["waited"])
    assert waited == [epoch - best for epoch, best in enumerate(bests, 1)]
    assert best_text(run.best) == text
    assert facts["better_weights"] == better_weights(values(raw, ema, name), True, metric)


def both(top1, loss, ema_top1, ema_loss):
    return values(top1, ema_top1) | values(loss, ema_loss, "loss")


def test_of_equal_accuracies_the_lower_loss_is_the_better():
    """On few images all epochs may reach 100 %, of which the first is hardly trained."""
    run, chosen = state(), []
    figures = [
        both(1.0, 0.9, 1.0, 1.1),  # the weights
        both(1.0, 0.8, 1.0, 0.3),  # their average
        both(1.0, 0.3, 0.9, 0.1),  # no better
        both(0.9, 0.1, 0.9, 0.1),  # a lower accuracy
        both(1.0, math.nan, 1.0, math.nan),
        both(1.0, 0.2, 0.5, 0.2),
    ]
    for epoch, found in enumerate(figures, 1):
        run.epoch = epoch
        facts, _ = judge(run, found, {}, "top1")
        chosen.append((run.best["epoch"], run.best["weights"], run.best["loss"], run.waited))
    assert chosen == [
        (1, "raw", 0.9, 0),
        *[(2, "ema", 0.3, waited) for waited in range(1, 5)],
        (6, "raw", 0.2, 5),
    ]
    assert facts["better_weights"] == "raw"
    del run.best["loss"]  # as older versions wrote it
    assert not judge(run, both(1.0, 0.1, 1.0, 0.1), {}, "top1")[1]


def test_an_evaluation_that_is_not_finite_is_never_the_best():
    run = state(ema=False)
    facts, is_best = judge(run, {"eval_loss": math.nan}, {"eval_loss": math.nan}, "loss")
    assert not is_best
    assert json.loads(json.dumps(facts, allow_nan=False))["metrics"] == {}
    assert judge(run, {"eval_loss": 4.0}, {}, "loss")[1]
    assert not judge(run, {"eval_loss": math.inf}, {}, "loss")[1]
    assert run.best["value"] == 4.0
    assert judge(run, {"eval_accuracy_top_1": 0.1}, {}, "top1")[1], "another metric starts afresh"


def test_early_stopping_saves_and_a_resumed_run_has_nothing_to_train(
    small_run, tiny, tmp_path, capsys
):
    """With a learning rate of 0 no evaluation improves, so the run stops after the third."""
    flags = [*small_run, "--data_dir", str(tiny), "--model_dir", str(tmp_path / "run")]
    flags += ["--max_epochs", "9", "--warmup_epochs", "0", "--lr_init", "0", "--weight_decay", "0"]
    flags += ["--bn_momentum", "0.99999", "--early_stopping", "2", "--save_checkpoint_freq", "5"]
    assert main([*flags, "--run_epochs", "2"]) == 0
    assert "stopping early" not in capsys.readouterr().out
    assert main([*flags, "--resume_checkpoint"]) == 0
    said = capsys.readouterr().out
    assert re.search(
        r"stopping early: 2 evaluations did not improve \w+; the best so far is epoch \d", said
    )
    assert re.search(r"best: epoch \d of 9, top-1 ", said), "of equal ones, that of the lowest loss"
    assert "last: epoch 3 of 9, top-1 " in said
    assert said.rstrip().endswith("--early_stopping null"), "the command to go on must turn it off"
    last = checkpoint.read(checkpoint.latest(tmp_path / "run")).state
    assert (last["epoch"], last["waited"]) == (3, 2)
    assert main([*flags, "--resume_checkpoint"]) == 0
    assert "nothing left to train: 3 epochs are done" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--early_stopping=3", "--best_metric=loss"])
def test_flags_that_depend_on_evaluations_are_refused_in_mode_train(flag, tiny, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--mode", "train", "--data_dir", str(tiny), "--model_dir", str(tmp_path), flag])
    assert "needs evaluations: --mode train_and_eval" in capsys.readouterr().err
