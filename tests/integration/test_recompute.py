"""Runs that compute activations again end with the weights of runs that keep them."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from main import main

pytestmark = pytest.mark.slow

# Both ranks take a step with and without recomputation, and exchange within batch norm.
COMPARE = """
import json
import numpy as np
import tensorflow as tf
from convoy.utils.distributed import ranks

ranks.init()
from convoy.model import build_model, get_arch
from convoy.model.arithmetic import maps_by_block
from convoy.model.recompute import Recomputing

options = {"num_classes": 5, "image_size": 32, "seed": 0, "batch_norm": "syncbn"}
model = build_model("efficientnet-test", **options)
rng = np.random.default_rng(ranks.rank())
images = rng.integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
start = [v.numpy() for v in model.non_trainable_variables]


def step(call):
    for variable, value in zip(model.non_trainable_variables, start):
        variable.assign(value)

    @tf.function
    def forward_backward(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(call(images) ** 2)
        return tape.gradient(loss, [v.value for v in model.trainable_variables])

    gradients = [g.numpy() for g in forward_backward(images)]
    return gradients + [v.numpy() for v in model.non_trainable_variables]


plain = step(lambda images: model(images, training=True))
again = step(Recomputing(model, maps_by_block(get_arch("efficientnet-test"))))
equal = all(np.array_equal(a, b) for a, b in zip(plain, again, strict=True))
print("REPORT", json.dumps({"equal": equal, "count": len(plain)}), flush=True)
"""


def test_two_ranks_with_synchronised_batch_norm_compute_the_same(convoy, script):
    done = convoy(np=2, script=script(COMPARE, quickly=True))
    found = [
        json.loads(line.split("REPORT")[1]) for line in done.text.splitlines() if "REPORT" in line
    ]
    assert len(found) == 2
    assert all(one["equal"] and one["count"] > 30 for one in found), done.text


def test_a_run_continued_with_recomputation_has_the_same_bits(tiny, tmp_path):
    flags = ["--arch", "efficientnet-test", "--data_dir", tiny, "--max_epochs", "2", "--mode"]
    flags += ["train", "--no-training_report", "--stochastic_depth", "0.3", "--grad_accum_steps"]
    flags = [str(flag) for flag in (*flags, 2, "--model_dir")]
    assert main([*flags, str(tmp_path / "plain")]) == 0
    assert main([*flags, str(tmp_path / "other"), "--run_epochs", "1"]) == 0
    more = ["--recompute", "1", "--resume_checkpoint"]
    assert main([*flags, str(tmp_path / "other"), *more]) == 0
    ends = [max((tmp_path / run).rglob("model.safetensors")) for run in ("plain", "other")]
    assert ends[0].parent.name == ends[1].parent.name
    for one, other in zip(*(load_file(end).values() for end in ends), strict=True):
        np.testing.assert_array_equal(one, other)
