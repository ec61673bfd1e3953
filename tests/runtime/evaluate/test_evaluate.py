"""Evaluation agrees with scikit-learn and NumPy in float64, and ranks end it together."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import f1_score, log_loss, recall_score, top_k_accuracy_score

from convoy.dataloader.errors import DataError
from convoy.runtime.evaluate import evaluate as module
from convoy.runtime.evaluate.evaluate import UNITS, evaluate
from convoy.runtime.evaluate.step import EvalStep
from tests.runtime.evaluate.random_logits import CLASSES, EXAMPLES
from tests.runtime.logits import softmax

BATCH = 8


def batches(logits, labels, size=BATCH, filler=0.0, fill_label=0, start=0, stride=1):
    """Yields one rank's batches (positions start::stride), the last one padded with weight 0."""
    logits, labels = logits[start::stride], labels[start::stride]
    for i in range(0, len(labels), size):
        x, y = logits[i : i + size], labels[i : i + size]
        missing = size - len(y)
        weights = np.r_[np.ones(len(y)), np.zeros(missing)].astype(np.float32)
        x = np.concatenate([x, np.full((missing, CLASSES), filler, np.float32)])
        y = np.concatenate([y, np.full(missing, fill_label, np.int32)])
        yield tf.constant(x), tf.constant(y), tf.constant(weights)


def judged(logits, labels):
    """Returns scikit-learn's metrics for the same logits."""
    classes = np.arange(CLASSES)
    return {
        "eval_loss": log_loss(labels, softmax(logits), labels=classes),
        "eval_accuracy_top_1": top_k_accuracy_score(labels, logits, k=1, labels=classes),
        "eval_accuracy_top_5": top_k_accuracy_score(labels, logits, k=5, labels=classes),
        "eval_macro_recall": recall_score(
            labels, logits.argmax(axis=1), average="macro", labels=np.unique(labels)
        ),
        "eval_macro_f1": f1_score(labels, logits.argmax(axis=1), average="macro"),
    }


@pytest.mark.parametrize("filler", [0.0, np.inf, np.nan], ids=str)
@pytest.mark.parametrize("size", [1, BATCH, 101, 128])
def test_metrics_equal_scikit_learns_whatever_the_padding_holds(identity, examples, size, filler):
    result = evaluate(
        EvalStep(identity), batches(*examples, size=size, filler=filler, fill_label=-1), size
    )
    for name, want in judged(*examples).items():
        assert result[name] == pytest.approx(want, abs=1e-6), name
    assert result["eval_examples"] == EXAMPLES


@pytest.mark.parametrize("world", [2, 3, 7])
def test_metrics_summed_over_ranks_equal_those_of_one_rank(identity, examples, monkeypatch, world):
    """Runs the ranks in turn: the first time to collect sums, the second time to add them up."""
    step, seen = EvalStep(identity), {}

    def collect(sums):
        seen.setdefault(sums.shape, []).append(sums)
        return sums

    monkeypatch.setattr(module.ranks, "all_sum", collect)
    for rank in range(world):
        evaluate(step, batches(*examples, start=rank, stride=world), BATCH)
    total = {shape: np.sum(parts, axis=0) for shape, parts in seen.items()}
    monkeypatch.setattr(module.ranks, "all_sum", lambda sums: total[sums.shape])
    result = evaluate(step, batches(*examples, start=0, stride=world), BATCH)
    for name, want in judged(*examples).items():
        assert result[name] == pytest.approx(want, abs=1e-6), name


def test_xla_gives_the_same_metrics(identity, examples):
    want = evaluate(EvalStep(identity), batches(*examples), BATCH)
    got = evaluate(EvalStep(identity, use_xla=True), batches(*examples), BATCH)
    for name in ("eval_loss", "eval_accuracy_top_1", "eval_accuracy_top_5"):
        assert got[name] == pytest.approx(want[name], abs=1e-6)


def test_the_figures_have_nvidias_names_and_a_unit_each(identity, examples):
    result = evaluate(EvalStep(identity), batches(*examples), BATCH)
    assert set(result) == set(UNITS) - {"eval_unreadable"}, (
        "it appears only if images are unreadable"
    )
    assert all(isinstance(value, float) for value in result.values())
    assert {
        *("eval_loss", "eval_accuracy_top_1", "eval_accuracy_top_5", "eval_examples"),
        *("eval_macro_recall", "eval_macro_f1"),
        *("avg_exp_per_second_eval", "avg_exp_per_second_eval_per_GPU", "avg_time_per_exp_eval"),
        *("latency_50pct", "latency_90pct", "latency_95pct", "latency_99pct"),
    } == set(result)


class Clock:
    """A stand-in for `time` by which batch n takes `times[n]` seconds."""

    def __init__(self, times):
        self.now, self.times, self.asked = 0.0, iter(times), 0

    def perf_counter(self):
        self.asked += 1
        if self.asked % 2 == 0:
            self.now += next(self.times)
        return self.now


def test_latency_percentiles_equal_numpys_without_the_first_batch(identity, examples, monkeypatch):
    times = np.random.default_rng(0).exponential(0.01, 13)
    times[0] = 99.0
    monkeypatch.setattr(module, "time", Clock(times))
    result = evaluate(EvalStep(identity), batches(*examples), BATCH)
    for q in (50, 90, 95, 99):
        want = np.percentile(times[1:] * 1e3, q)
        assert result[f"latency_{q}pct"] == pytest.approx(want, rel=1e-9)
    mean = times[1:].mean()
    assert result["avg_time_per_exp_eval"] == pytest.approx(mean * 1e3)
    assert result["avg_exp_per_second_eval"] == pytest.approx(BATCH / mean)
    assert result["avg_exp_per_second_eval_per_GPU"] == pytest.approx(BATCH / mean)


def test_prof_ends_the_evaluation_after_so_many_batches(identity, examples):
    asked = []

    def counted():
        for number, batch in enumerate(batches(*examples)):
            asked.append(number)
            yield batch

    result = evaluate(EvalStep(identity), counted(), BATCH, prof=3)
    want = judged(*(array[: 3 * BATCH] for array in examples))
    assert result["eval_accuracy_top_1"] == pytest.approx(want["eval_accuracy_top_1"])
    assert asked == [0, 1, 2]


def test_a_single_batch_has_a_latency(identity, examples):
    result = evaluate(EvalStep(identity), batches(*examples, size=128), 128)
    assert result["latency_99pct"] > 0


class Ranks:
    """Several ranks as threads; a collective waits at a barrier for all of them."""

    def __init__(self, size, monkeypatch):
        self.size, self._own = size, threading.local()
        self._barrier, self._values = threading.Barrier(size, timeout=20), [None] * size
        monkeypatch.setattr(module.ranks, "size", lambda: size)
        monkeypatch.setattr(module.ranks, "rank", lambda: self._own.rank)
        monkeypatch.setattr(module.ranks, "all_gather", lambda x: np.concatenate(self.all(x)))
        monkeypatch.setattr(module.ranks, "all_gather_object", self.all)
        monkeypatch.setattr(module.ranks, "all_sum", lambda x: np.sum(self.all(x), axis=0))

    def all(self, value):
        self._values[self._own.rank] = value
        self._barrier.wait()
        values = list(self._values)
        self._barrier.wait()
        return values

    def run(self, action):
        """Returns what the action returns, or the error it raises, on each rank."""

        def on(rank):
            self._own.rank = rank
            try:
                return action(rank)
            except Exception as error:  # noqa: BLE001 — compared by the test
                return error

        with ThreadPoolExecutor(self.size) as pool:
            return list(pool.map(on, range(self.size)))


def counting_step(*_):
    return np.array([1.0, 1.0, 1.0, 1.0])


def ended_by(outcomes):
    return {(type(outcome).__name__, str(outcome)) for outcome in outcomes}


@pytest.mark.parametrize("seed", range(20))
def test_all_ranks_end_an_evaluation_in_the_same_way(monkeypatch, seed):
    """Some rank is asked to stop or fails, at a random batch; ranks have random speeds."""
    rng = np.random.default_rng(seed)
    size, total = int(rng.integers(1, 5)), int(rng.integers(1, 40))
    monkeypatch.setattr(module, "_AGREE_SECONDS", float(rng.choice([0.0, 0.002, 10.0])))
    ranks, stopped = Ranks(size, monkeypatch), [False] * size
    stops, trouble = ({int(r): int(rng.integers(0, total)) for r in rng.choice(size, n)} for n in
                      (int(rng.integers(0, 2)), int(rng.integers(0, 2))))  # fmt: skip
    delays = rng.uniform(0, 0.002, size)

    def batches(rank):
        for number in range(total):
            if trouble.get(rank) == number:
                raise DataError(f"batch {number}")
            stopped[rank] |= stops.get(rank) == number
            time.sleep(delays[rank])
            yield number, number, number

    outcomes = ranks.run(
        lambda rank: evaluate(counting_step, batches(rank), 1, asked=lambda: stopped[rank])
    )
    kinds = ended_by(o for o in outcomes if isinstance(o, Exception))
    if kinds:
        assert len(kinds) == 1, outcomes
        assert all(isinstance(o, Exception) for o in outcomes)
        (kind,) = kinds
        assert kind in {("Abandoned", ""), *(("DataError", f"batch {n}") for n in trouble.values())}
    else:
        assert all(o["eval_examples"] == size * total for o in outcomes)
        assert not trouble, "an error must reach all ranks, at the end at the latest"


def test_a_request_to_stop_ends_a_long_evaluation_soon_on_all_ranks(monkeypatch):
    monkeypatch.setattr(module, "_AGREE_SECONDS", 0.05)
    ranks, done = Ranks(2, monkeypatch), [0, 0]

    def batches(rank):
        for done[rank] in range(100_000):
            time.sleep(0.001 * (1 + rank))
            yield 0, 0, 0

    outcomes = ranks.run(
        lambda rank: evaluate(
            counting_step, batches(rank), 1, asked=lambda: rank == 0 and done[0] > 50
        )
    )
    assert ended_by(outcomes) == {("Abandoned", "")}
    assert done[0] == done[1] < 50 + 100


def test_errors_of_several_ranks_are_joined_at_the_end_of_a_short_evaluation(monkeypatch):
    ranks = Ranks(3, monkeypatch)

    def batches(rank):
        for number in range(9):
            if (rank, number) in ((1, 2), (2, 5)):
                raise DataError(f"rank {rank}")
            yield number, number, number

    outcomes = ranks.run(lambda rank: evaluate(counting_step, batches(rank), 1))
    assert ended_by(outcomes) == {("DataError", "rank 1; rank 2")}


def test_nan_logits_count_as_wrong_for_every_class(identity):
    logits = np.eye(11, dtype=np.float32)[:4]
    logits[0] = np.nan  # argmax would return 0, which is the label
    labels, weights = np.arange(4, dtype=np.int32), np.ones(4, np.float32)
    step = EvalStep(identity)
    result = evaluate(step, [tuple(map(tf.constant, (logits, labels, weights)))], 4)
    assert result["eval_accuracy_top_1"] == result["eval_macro_recall"] == 0.75
    assert step.totals()[0].tolist() == [0, 1, 1, 1] + [0] * 7
