"""Synchronised batch norm on two real ranks equals batch norm over the joint batch."""

import json

import pytest

# Every rank normalises its half of a batch, which is compared with the whole batch in one process.
# The halves are interleaved, so that each rank's own statistics differ from the joint ones.
COMPARE = """
import json
import keras
import numpy as np
import tensorflow as tf
from convoy.utils.distributed import ranks

ranks.init()
rank, size = ranks.rank(), ranks.size()
from convoy.model.layers import FusedBatchNorm
from convoy.model.sync_batch_norm import SyncBatchNorm

rng = np.random.default_rng(0)
images = (rng.normal(3, 2, (8, 5, 5, 7)) * np.arange(1, 8)).astype(np.float32)
images[::2] += 1.5
upstream = rng.normal(size=images.shape).astype(np.float32)


def run(kind, x, dy, policy, axis=-1):
    name = "bn_" + policy + str(axis % 4)
    layer = kind(axis=axis, momentum=0.9, dtype=keras.dtype_policies.get(policy), name=name)
    layer.build((None, 5, 5, 7) if axis == -1 else (None, 7, 5, 5))
    layer.gamma.assign(np.linspace(0.5, 2, 7))
    layer.beta.assign(np.linspace(-1, 1, 7))
    layer.moving_mean.assign(np.linspace(-1, 4, 7))

    @tf.function(autograph=False)
    def forward_backward(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        sources = [x, layer.gamma.value, layer.beta.value]
        return y, *tape.gradient(y, sources, output_gradients=tf.cast(dy, y.dtype))

    y, dx, dgamma, dbeta = (np.asarray(tf.cast(t, tf.float32)) for t in forward_backward(x, dy))
    own = y, dx
    shared = dgamma, dbeta, layer.moving_mean.numpy(), layer.moving_variance.numpy()
    return own, shared


def difference(got, want):
    return [float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(got, want)]


report = {}
for policy in ("float32", "mixed_bfloat16", "mixed_float16"):
    (y, dx), shared = run(SyncBatchNorm, images[rank::size], upstream[rank::size], policy)
    (all_y, all_dx), wanted = run(FusedBatchNorm, images, upstream, policy)
    gradients = [ranks.all_sum(part) for part in shared[:2]]
    got = [y, dx, *gradients, *shared[2:]]
    want = [all_y[rank::size], all_dx[rank::size], *wanted]
    alone, _ = run(FusedBatchNorm, images[rank::size], upstream[rank::size], policy)
    report[policy] = difference(got, want)
    if policy == "float32":
        turned = [np.moveaxis(a[rank::size], 3, 1) for a in (images, upstream)]
        (y, dx), shared = run(SyncBatchNorm, *turned, policy, axis=1)
        turned = [np.moveaxis(a, 1, 3) for a in (y, dx)]
        sums = [ranks.all_sum(part) for part in shared[:2]]
        report["axis 1"] = difference([*turned, *sums, *shared[2:]], want)
    report[policy + " unsynchronised"] = float(np.abs(alone[0] - want[0]).max())
print("REPORT", rank, json.dumps(report), flush=True)
"""


def test_two_ranks_normalise_like_one_process_with_the_joint_batch(convoy, script):
    done = convoy(np=2, script=script(COMPARE, quickly=True))
    reports = [
        json.loads(line.split("REPORT", 1)[1].strip()[2:])
        for line in done.text.splitlines()
        if "REPORT" in line
    ]
    assert len(reports) == 2
    for report in reports:
        assert report["float32 unsynchronised"] > 0.1, (
            "without synchronisation the results must differ"
        )
        assert max(report["float32"]) < 1e-5
        assert max(report["axis 1"]) < 1e-5, "NCHW"
        for policy in ("mixed_bfloat16", "mixed_float16"):
            y, dx, _dgamma, _dbeta, mean, variance = report[policy]
            assert max(y, dx) < 2e-3, policy
            assert max(mean, variance) < 1e-5, "statistics must be computed in float32"


def test_in_one_process_syncbn_equals_batch_norm():
    import numpy as np

    from convoy.model.layers import FusedBatchNorm
    from convoy.model.sync_batch_norm import SyncBatchNorm

    images = np.random.default_rng(0).normal(size=(4, 3, 3, 2)).astype(np.float32)
    one, other = SyncBatchNorm(), FusedBatchNorm()
    assert np.asarray(one(images, training=True)) == pytest.approx(
        np.asarray(other(images, training=True))
    )
