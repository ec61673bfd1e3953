"""Reading log.json: runs that were resumed, killed or rolled back, and other modes' entries."""

import json
import math

import numpy as np
import pytest

from convoy.runtime.report.curves import (
    best_epoch,
    best_score,
    in_epochs,
    last_epoch,
    smooth,
    state_of,
)
from convoy.runtime.run_folder.history import RANK_TIMES, read_history, read_run
from convoy.runtime.settings.config import Config
from convoy.utils.errors import ConfigError
from convoy.utils.logging import make_json_logger


class Log:
    """Writes log.json as training does, and reads it back."""

    def __init__(self, path):
        self.path = path

    def launch(self, *entries, mode="train_and_eval"):
        with_ = make_json_logger(self.path, append=self.path.exists())
        with_.parameters({"mode": mode})
        for step, data in entries:
            with_.log(step, data)
        with_.close()
        return self

    def read(self):
        return read_history(self.path)


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path / "log.json")


def step(epoch, number, loss):
    return (epoch, number), {"train.loss": loss, "train.lr": 0.1}


def epoch(number, at, loss, **more):
    return (number,), {"train.loss": loss, "step": at} | more


def evaluation(number, top1):
    return (number,), {"eval_loss": 1.0, "eval_accuracy_top_1": top1}


def test_an_evaluation_that_writes_into_a_running_runs_log_is_ignored(log):
    """Both processes append lines to the same file."""
    run = make_json_logger(log.path)
    run.parameters({"mode": "train_and_eval"})
    run.log(*step(1, 1, 3.0))
    beside = make_json_logger(log.path, append=True)
    beside.parameters({"mode": "eval"})
    run.log(*step(1, 2, 2.5))
    beside.log((), {"eval_loss": 9.0, "eval_accuracy_top_1": 0.1})
    beside.close()
    run.log(*epoch(1, 2, 2.7))
    assert all(json.loads(line[5:]) for line in log.path.read_text().splitlines()), (
        "every line must be whole"
    )
    history = log.read()
    assert (list(history.steps), list(history.epochs)) == ([1, 2], [1])
    assert (history.launches, history.summary) == (1, {})
    run.log((), {"training_loss": 2.7, "eval_loss": 1.0})
    run.close()
    assert log.read().summary == {"training_loss": 2.7, "eval_loss": 1.0}


def test_steps_epochs_and_evaluations_are_read_from_the_log(log):
    history = log.launch(
        step(1, 1, 3.0), step(1, 2, 2.5), epoch(1, 2, 2.7), evaluation(1, 0.4), step(2, 3, 2.0)
    ).read()
    assert list(history.steps) == [1, 2, 3]
    assert history.epochs[1]["train.loss"] == 2.7
    assert history.epochs[1]["eval_accuracy_top_1"] == 0.4
    x, y = history.curve("train.loss")
    np.testing.assert_array_equal(x, [1, 2, 3])
    np.testing.assert_array_equal(y, [3.0, 2.5, 2.0])
    x, y = history.curve("eval_loss")
    assert (x.tolist(), y.tolist()) == ([2.0], [1.0])
    assert not history.summary
    assert history.launches == 1


def test_steps_repeated_after_a_resume_replace_the_earlier_ones(log):
    log.launch(
        step(1, 1, 3.0), epoch(1, 2, 2.7), evaluation(1, 0.4),
        step(2, 3, 2.0), epoch(2, 4, 1.9), evaluation(2, 0.9), step(3, 5, 1.0),
    )  # fmt: skip
    history = log.launch(step(2, 3, 2.1), epoch(2, 4, 2.0)).read()
    assert {s: v["train.loss"] for s, v in history.steps.items()} == {1: 3.0, 3: 2.1}
    assert set(history.epochs) == {1, 2}
    assert history.epochs[2] == {"train.loss": 2.0, "step": 4}, "the old evaluation is gone"
    assert history.launches == 2


def test_later_evaluations_and_benchmarks_in_the_log_are_ignored(log):
    log.launch(step(1, 1, 3.0), epoch(1, 2, 2.7), ((), {"training_loss": 2.7}))
    log.launch(((), {"eval_loss": 9.0}), mode="eval")
    history = log.launch(step(1, 1, 8.0), epoch(1, 9, 8.0), mode="training_benchmark").read()
    assert history.summary == {"training_loss": 2.7}
    assert history.steps[1]["train.loss"] == 3.0
    assert history.epochs[1]["step"] == 2


def test_truncated_and_foreign_lines_and_nan_are_skipped(log):
    log.launch(step(1, 1, 3.0), step(1, 2, math.nan), step(1, 3, 1.0))
    with log.path.open("a") as file:
        file.write('not ours\nDLLL [1]\nDLLL {"type": "LOG", "step": [1, 4], "data": {"train.lo')
    history = log.read()
    x, y = history.curve("train.loss")
    assert (x.tolist(), y.tolist()) == ([1.0, 3.0], [3.0, 1.0]), "NaN is left out"


def test_the_last_step_of_an_epoch_is_inferred_in_older_logs(log):
    (number,), values = epoch(1, 2, 2.7)
    del values["step"]
    entries = step(1, 1, 3.0), step(1, 2, 2.5), ((number,), values), evaluation(1, 0.5)
    history = log.launch(*entries, step(2, 3, 3.0)).read()
    assert history.epochs[1]["step"] == 2


def test_a_curve_uses_steps_or_epochs_whichever_has_more_points(log):
    epochs = [epoch(n, 10 * n, 5.0 - n) for n in range(1, 5)]
    history = log.launch(step(1, 1, 7.0), *epochs).read()
    assert history.curve("train.loss")[0].tolist() == [10, 20, 30, 40]


def test_rank_times_are_medians_over_epochs_with_the_same_number_of_ranks(log):
    def times(*columns):
        return dict(zip(RANK_TIMES, columns, strict=True))

    history = log.launch(
        epoch(1, 1, 1.0, **times([9.0], [9.0], [9.0])),
        epoch(2, 2, 1.0, **times([1.0, 2.0], [3.0, 3.0], [1.0, math.nan])),
        epoch(3, 3, 1.0, **times([3.0, 2.0], [5.0, 3.0], [2.0, math.nan])),
    ).read()
    np.testing.assert_array_equal(
        history.rank_times(RANK_TIMES), [[2.0, 4.0, 1.5], [2.0, 3.0, math.nan]]
    )
    assert log.launch(step(1, 1, 1.0)).read().rank_times(RANK_TIMES).shape == (0, 3)


def test_steps_are_converted_to_epochs_of_varying_length(log):
    history = log.launch(epoch(1, 10, 1.0), epoch(2, 15, 1.0), step(3, 17, 1.0)).read()
    got = in_epochs(history, np.array([0, 5, 10, 14, 15, 20]))
    np.testing.assert_allclose(got, [0, 0.5, 1, 1.8, 2, 3])
    del history.epochs[1], history.epochs[2]
    np.testing.assert_array_equal(in_epochs(history, np.array([3.0])), [3.0])


def test_the_best_epoch_is_by_the_better_of_raw_weights_and_average(log):
    history = log.launch(
        epoch(1, 1, 1.0), ((1,), {"eval_accuracy_top_1": 0.5, "eval_ema_accuracy_top_1": 0.1}),
        epoch(2, 2, 1.0), ((2,), {"eval_accuracy_top_1": 0.2, "eval_ema_accuracy_top_1": 0.6}),
        epoch(3, 3, 1.0), ((3,), {"eval_accuracy_top_1": 0.6, "eval_ema_accuracy_top_1": 0.3}),
        epoch(4, 4, 1.0),
    ).read()  # fmt: skip
    assert best_epoch(history) == 2
    assert last_epoch(history) == 4
    assert best_epoch(log.read().__class__()) is None


def test_of_equal_epochs_the_best_has_the_lowest_loss(log):
    same = {"eval_accuracy_top_1": 1.0, "eval_ema_accuracy_top_1": 1.0}
    history = log.launch(
        epoch(1, 1, 1.0), ((1,), same | {"eval_loss": 0.9, "eval_ema_loss": 1.0}),
        epoch(2, 2, 1.0), ((2,), same | {"eval_loss": 0.8, "eval_ema_loss": 0.3}),
        epoch(3, 3, 1.0), ((3,), same | {"eval_loss": 0.4, "eval_ema_loss": 0.5}),
        epoch(4, 4, 1.0), ((4,), same | {"eval_loss": math.nan}),
    ).read()  # fmt: skip
    assert best_epoch(history) == 2
    assert best_score(history.epochs[2]) == ("eval_ema_accuracy_top_1", 1.0)


def test_smoothing_is_the_debiased_exponential_average():
    values = np.random.default_rng(0).normal(size=100)
    kept = 1 - 1 / 5
    for n in (1, 2, 50, 100):
        weights = kept ** np.arange(n)[::-1]
        want = np.average(values[:n], weights=weights)
        np.testing.assert_allclose(smooth(values)[n - 1], want, rtol=1e-9)
    np.testing.assert_allclose(smooth(np.full(7, 3.0)), 3.0)


def folder(path, epochs=2, **settings):
    path.mkdir()
    config = Config(model_dir=str(path), max_epochs=epochs, **settings)
    (path / "config.yaml").write_text(config.to_yaml())
    return Log(path / "log.json")


def test_the_state_of_a_run_is_unfinished_stopped_or_finished(tmp_path):
    log = folder(tmp_path / "a")
    log.launch(epoch(1, 2, 1.0))
    run = read_run(str(tmp_path / "a"))
    assert "no end in the log" in state_of(run, run.history.ended + 600)
    assert "10 min before" in state_of(run, run.history.ended + 600)
    log.launch(epoch(1, 2, 1.0), ((), {"training_loss": 1.0}))
    assert state_of(read_run(str(tmp_path / "a")), 0) == "stopped as asked, after 1 of 2 epochs"
    log.launch(epoch(2, 4, 1.0), ((), {"training_loss": 1.0}))
    assert state_of(read_run(str(tmp_path / "a")), 0) == "finished after 2 epochs"


def test_a_folder_without_a_run_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match="nowhere is not the folder of a training run"):
        read_run(str(tmp_path / "nowhere"))
    folder(tmp_path / "empty")
    with pytest.raises(ConfigError, match="has no log"):
        read_run(str(tmp_path / "empty"))
    (tmp_path / "empty" / "log.json").write_text('DLLL {"type": "LOG"}\n')
    with pytest.raises(ConfigError, match="holds no training"):
        read_run(str(tmp_path / "empty"))


def test_a_run_is_read_with_another_log_name_and_without_environment(tmp_path):
    log = folder(tmp_path / "run", log_filename="other.json")
    log.path = tmp_path / "run" / "other.json"
    log.launch(step(1, 1, 1.0))
    assert read_run(str(tmp_path / "run")).environment == {}
    (tmp_path / "run" / "environment.json").write_text(json.dumps({"python": "3"}))
    assert read_run(f"{tmp_path}/run/").environment == {"python": "3"}
    assert read_run(f"{tmp_path}/run/").name == "run"
