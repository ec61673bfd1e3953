"""The region that TensorFlow's pool for tensors gets before the first step."""

import subprocess
import sys
from pathlib import Path

import pytest

RESERVE = """
import sys
from convoy.utils.machine.device import import_tensorflow, prefer_onednn
prefer_onednn()
import_tensorflow()
import tensorflow as tf
from convoy.runtime.builders.models import build_training_model
from convoy.runtime.fitted.foreseen_memory import Foresight
from convoy.runtime.fitted.memory_pool import reserve_pool
from convoy.runtime.settings.config import Config
from convoy.utils.machine.resources import resident_memory

config = Config(arch="efficientnet-b0", image_size=96, train_batch_size=64, recompute=sys.argv[1])
model = build_training_model(config, 10)
needed = Foresight(config, model, 4, gpu=False).peak(64, config.recompute).tensors
tf.zeros(2**20).numpy()
before = resident_memory()
reserve_pool(config, model)
peak = tf.config.experimental.get_memory_info("CPU:0")["peak"]
print(peak / needed, (resident_memory() - before) / needed)
"""


@pytest.mark.parametrize(("recompute", "reserves"), [("blocks", True), ("norms", False)])
def test_the_pool_has_room_and_takes_little_memory(recompute, reserves):
    done = subprocess.run(
        [sys.executable, "-c", RESERVE, recompute],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    room, taken = map(float, done.stdout.split())
    assert (room > 1.3) == reserves  # TensorFlow says how much of the pool was ever in use
    assert taken < 0.12  # the index
