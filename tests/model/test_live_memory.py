"""The peak that `model.step_memory` computes, against TensorFlow's own log of its tensors."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from convoy.model import native
from convoy.model.step_memory import step_memory
from convoy.model.weights.load import freeze_backbone
from tests.model.few_blocks import block_names, small

BATCH, SIZE, SECOND = 16, 96, "the second step begins"
STEP = f"""
import sys
from convoy.utils.machine.device import import_tensorflow, prefer_onednn
prefer_onednn()
import_tensorflow()
import tensorflow as tf
from convoy.model import native
from convoy.model.recompute import Recomputing
from convoy.model.weights.load import freeze_backbone
from tests.model.few_blocks import block_names, small

tf.config.threading.set_inter_op_parallelism_threads(1)  # otherwise the order varies
name, how, frozen = sys.argv[1:]
model = small(name, image_size={SIZE})
if frozen == "True":
    freeze_backbone(model, name)
call = lambda x: model(x, training=True)
if how != "none":
    call = Recomputing(model, block_names(model) if how == "blocks" else ())

@tf.function(autograph=False)
def step(images):
    with native.enabled(), tf.GradientTape() as tape:
        loss = tf.reduce_sum(call(images) ** 2)
    found = tape.gradient(loss, [v.value for v in model.trainable_variables])
    return tf.add_n([tf.reduce_sum(tf.cast(one, tf.float32)) for one in found])

images = tf.zeros(({BATCH}, {SIZE}, {SIZE}, 3), tf.uint8)
step(images).numpy()
print("{SECOND}", file=sys.stderr, flush=True)
step(images).numpy()
"""
LINE = re.compile(
    r"MemoryLogTensor(?P<freed>Deallocation)?\w*"
    r"(?=.*?allocation_id: (?P<id>\d+))(?:.*?allocated_bytes: (?P<bytes>\d+))?"
)


def peak_of_second_step(log):
    """Returns the most bytes of tensors in the second step, besides those from before."""
    live, total, before, most = {}, 0, None, 0
    for line in log.splitlines():
        if SECOND in line:
            before = most = total
        elif found := LINE.search(line):
            if found["freed"]:
                total -= live.pop(found["id"], 0)
            elif found["bytes"] and found["id"] not in live:
                live[found["id"]] = int(found["bytes"])
                total += live[found["id"]]
                most = max(most, total)
    return most - before


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("how", ["none", "norms", "blocks"])
@pytest.mark.parametrize("name", ["efficientnet-b0", "resnet50"])
def test_the_peak_is_that_of_tensorflows_log(ops, name, how, frozen):
    done = subprocess.run(
        [sys.executable, "-c", STEP, name, how, str(frozen)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"TF_CPP_VMODULE": "log_memory=2", "TF_CPP_MIN_LOG_LEVEL": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    model = small(name, image_size=SIZE)
    if frozen:
        freeze_backbone(model, name)
    whole = {"none": None, "norms": (), "blocks": block_names(model)}[how]
    with native.enabled():
        found = step_memory(model, whole, natively=True).peak(BATCH).total
    measured = peak_of_second_step(done.stderr)
    if frozen:  # TensorFlow fuses batch norms with convolutions, which the walk does not know
        assert 0.95 * measured <= found <= 1.4 * measured
    else:
        assert found == pytest.approx(measured, rel=0.1)
