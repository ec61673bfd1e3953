"""Several ranks compute the same as one process, in real Horovod processes."""

import re

import numpy as np
import pytest

from convoy.runtime.run_folder import checkpoint
from convoy.utils.distributed.slurm_and_nproc import serve
from main import main
from tests.integration.logs import losses

# Runs main.py with frozen batch norm, since its statistics are separate on each rank, and prints a
# hash of the final weights on every rank.
FROZEN = """
import hashlib, os, sys
from convoy.runtime.train import new_state, trainer
build, run = new_state.build_training_model, trainer.Trainer.run

def build_frozen(*args):
    model = build(*args)
    for layer in model.layers:
        if any(w.path.endswith("moving_mean") for w in layer.weights):
            layer.trainable = False
    return model

def run_and_tell(self):
    figures = run(self)
    digest = hashlib.sha256()
    for weight in self.state.model.weights:
        digest.update(weight.numpy().tobytes())
    print("DIGEST", os.environ.get("HOROVOD_RANK"), digest.hexdigest(), flush=True)
    return figures

new_state.build_training_model = build_frozen
trainer.Trainer.run = run_and_tell
from main import main
sys.exit(main(sys.argv[1:]))
"""
EVALUATION = ("eval_loss", "eval_accuracy_top_1", "eval_accuracy_top_5")


def test_two_ranks_train_like_one_process_with_the_same_global_batch(
    convoy, script, small_run, tiny, tmp_path, log_lines
):
    """Only crops and flips are random, and they depend on the example alone.

    97 images in steps of 16: the last step of an epoch has one image, which only rank 0 has.
    """
    flags = (*small_run, "--max_epochs", "2", "--warmup_epochs", "1", "--data_dir", tiny)
    flags += ("--dropout", "0", "--stochastic_depth", "0", "--moving_average_decay", "0.9")
    path = script(FROZEN, quickly=True)
    one, two = tmp_path / "one", tmp_path / "two"
    convoy(*flags, "--model_dir", one, script=path)
    done = convoy(*flags, "--train_batch_size", "8", "--model_dir", two, np=2, script=path)
    digests = re.findall(r"DIGEST (\d) (\w{64})", done.text)
    assert sorted(rank for rank, _ in digests) == ["0", "1"]
    assert len({digest for _, digest in digests}) == 1, "both ranks must end with the same bits"
    logs = [log_lines(folder / "log.json") for folder in (one, two)]
    assert len(losses(logs[0])) == 14
    np.testing.assert_allclose(losses(logs[1]), losses(logs[0]), atol=1e-5)
    shown = re.findall(r"epoch \d/2  step \d/7  loss (\S+)  top-1 (\S+)%", done.out)
    logged = [line["data"] for line in logs[1] if len(line.get("step", "")) == 2]
    want = [(f"{d['train.loss']:.3f}", f"{100 * d['train.top1']:.1f}") for d in logged]
    assert shown == want, "the progress lines must cover both ranks' images"
    saved = [checkpoint.read(checkpoint.latest(folder)) for folder in (one, two)]
    for part in ("model", "ema"):
        want, got = (getattr(contents, part) for contents in saved)
        assert set(got) == set(want)
        for name, array in want.items():
            np.testing.assert_allclose(got[name], array, atol=1e-5, err_msg=name)
    finals = [
        next(line["data"] for line in reversed(log) if line.get("step") == []) for log in logs
    ]
    for name in EVALUATION:
        assert finals[1][name] == pytest.approx(finals[0][name], abs=1e-5)


def evaluation(log_lines, path):
    lines = log_lines(path)
    return next(line["data"] for line in reversed(lines) if line.get("step") == [])


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_evaluation_on_several_ranks_equals_one_process(
    convoy, trained, tiny, tmp_path, log_lines, ranks
):
    """With 53 images the ranks get unequal shares, and the last batches are padded."""
    log = tmp_path / "one.json"
    args = ("--mode", "eval", "--model_dir", trained.model_dir, "--data_dir", tiny)
    assert main([str(arg) for arg in (*args, "--log_filename", log)]) == 0
    one = evaluation(log_lines, log)
    log = tmp_path / "several.json"
    # Must be set before TensorFlow's first tensor, so needs its own process.
    threads = ("--intraop_threads", "1")
    convoy(*args, *threads, "--eval_batch_size", "7", "--log_filename", log, np=ranks)
    several = evaluation(log_lines, log)
    for name in EVALUATION:
        assert several[name] == pytest.approx(one[name], abs=1e-6), name


EXCHANGES = """
import numpy as np
import tensorflow as tf
from convoy.utils.distributed import ranks
from convoy.utils.distributed.ranks import Exchange

ranks.init()
rng = np.random.default_rng(ranks.rank())
shapes = [(3, 4), (5,), (2, 2), (7,)]
mine = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
weight = np.float32(0.25 + ranks.rank() / 2)
others = ranks.all_gather_object(mine)
want = [np.mean([part[i] for part in others], axis=0) for i in range(len(shapes))]
variants = {
    "plain": Exchange(),
    "groups": Exchange(groups=3),
    "more groups than tensors": Exchange(groups=99),
    "predivided": Exchange(predivide=2.0),
    "half": Exchange(fp16=True, groups=2, predivide=2.0),
}
large = [tf.constant([40000.0])]
for predivide, finite in ((1.0, False), (2.0, True)):  # the mean is 40,000, the sum no float16
    exchange = Exchange(fp16=True, predivide=predivide)
    ((mean,), _) = ranks.reduce_mean(large, [], exchange)
    assert bool(np.isfinite(mean.numpy()).all()) == finite, predivide
for name, exchange in variants.items():
    reduce = tf.function(lambda a, b, e=exchange: ranks.reduce_mean(a, [b], e), autograph=False)
    got, (mean_weight,) = reduce([tf.constant(g) for g in mine], tf.constant(weight))
    assert float(mean_weight) == 0.5, name
    for a, b in zip(got, want, strict=True):
        assert a.dtype == tf.float32, name
        np.testing.assert_allclose(a, b, atol=2e-3 if exchange.fp16 else 1e-6, err_msg=name)
try:
    ranks.check_adasum()
except ranks.DistributedError as error:
    assert "MPI or NCCL" in str(error)
else:
    raise AssertionError("Gloo has no Adasum")
print("EXCHANGED", ranks.rank(), flush=True)
ranks.shutdown()
"""


@pytest.mark.slow
def test_every_option_of_the_gradient_exchange_gives_the_mean(convoy, script):
    done = convoy(np=2, script=script(EXCHANGES, quickly=True))
    assert "EXCHANGED 0" in done.text
    assert "EXCHANGED 1" in done.text


def test_ranks_with_different_weights_are_detected(monkeypatch):
    from types import SimpleNamespace

    import keras

    from convoy.runtime.train import state

    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    everything = SimpleNamespace(model=model, offset=0)
    assert state.replicas_agree(everything)
    gather = state.ranks.all_gather
    monkeypatch.setattr(
        state.ranks, "all_gather", lambda mine: np.concatenate([gather(mine), mine ^ 1])
    )
    assert not state.replicas_agree(everything)


def test_several_processes_without_horovod_are_refused_with_make_setup(convoy, trained, tmp_path):
    """The environment has a launcher's variables, and `import horovod` fails."""
    (tmp_path / "horovod.py").write_text("raise ImportError('no Horovod here')")
    path = f"{tmp_path}:{__file__.rsplit('/tests/', 1)[0]}"
    launcher = {"HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1", "HOROVOD_GLOO_RENDEZVOUS_PORT": "9"}
    env = {"HOROVOD_SIZE": "2", "HOROVOD_RANK": "0", "PYTHONPATH": path} | launcher
    args = (*trained.flags, "--model_dir", tmp_path / "run")
    done = convoy(*args, env=env, code=1)
    assert "2 processes were launched, but Horovod is not installed" in done.err
    assert "make setup" in done.err
    assert "Traceback" not in done.err


CHAIN = """
import tensorflow as tf
from convoy.utils.distributed import ranks

ranks.init()
for number in range(20):
    mean = ranks.mean_over_ranks(tf.constant(float(ranks.rank())), f"number_{number}")
    assert mean.numpy() == 0.5
print("DONE")
"""


@pytest.mark.slow
def test_an_exchange_does_not_wait_for_horovods_cycle(convoy, script):
    """Horovod without our patch takes over 120 s: 20 exchanges in cycles of 8 s."""
    cycles = {"HOROVOD_CYCLE_TIME": "8000", "HOROVOD_IDLE_CYCLE_TIME": "8000"}
    done = convoy(np=2, env=cycles, script=script(CHAIN), timeout=120)
    assert done.text.count("DONE") == 2


TROUBLE = """
import threading
from convoy.utils.distributed import ranks

class Two(Exception):
    def __init__(self, name, reason):
        super().__init__(f"{name}: {reason}")

class Plain(Exception):
    pass

def holds_a_lock():
    error = Plain("locked")
    error.lock = threading.Lock()
    raise error

def two():
    raise Two("this", "that")

def plain():
    raise Plain("as it is")

ranks.init()
for action, kind, text in (
    (holds_a_lock, ranks.Elsewhere, "Plain: locked"),
    (two, ranks.Elsewhere, "Two: this: that"),
    (plain, Plain, "as it is"),
    (threading.Lock, TypeError, "cannot pickle '_thread.lock' object"),
):
    try:
        ranks.on_rank0(action)
    except Exception as error:
        if ranks.rank():
            assert (type(error), str(error)) == (kind, text), (type(error), error)
        assert ranks.is_told(error) == bool(ranks.rank())
    else:
        raise AssertionError(action)
assert ranks.on_rank0(lambda: {"a": 1}) == {"a": 1}
print("TOLD", ranks.rank(), flush=True)
ranks.shutdown()
"""


@pytest.mark.slow
def test_any_error_on_rank_0_is_raised_on_every_rank(convoy, script):
    done = convoy(np=2, script=script(TROUBLE, quickly=True), timeout=120)
    assert "TOLD 0" in done.text
    assert "TOLD 1" in done.text


LOST = """
import horovod.tensorflow as hvd
from convoy.utils.machine.last_words import tell_of_termination

tell_of_termination(lambda error: f"convoy: {type(error).__name__}: {error}", 1)
hvd.init()
"""


def test_a_lost_rank_during_gloos_start_ends_the_others_with_one_line(convoy, script):
    """Gloo throws the exception in a thread of Horovod's, where nothing catches it."""
    server, places = serve([2])
    home = {"HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1", "HOROVOD_GLOO_IFACE": "lo"}
    done = convoy(
        script=script(LOST),
        env=places[0] | home | {"HOROVOD_GLOO_TIMEOUT_SECONDS": "1"},
        code=1,
    )
    server.shutdown()
    server.server_close()
    assert "convoy: ConnectionError: the connection to another rank has broken off" in done.err
