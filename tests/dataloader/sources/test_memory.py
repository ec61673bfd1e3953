"""Memory stays constant: ten epochs of 50,000 records take no more than one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

EPOCHS = """
import gc, io, json, os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np, psutil, tensorflow as tf
from PIL import Image
from convoy.dataloader.sources.cache import cache_source
from convoy.dataloader.loader import Loader
from convoy.dataloader.options import InputOptions
from convoy.dataloader.sources.find import find_source
from convoy.dataloader.tfrecord.example import encode_example

folder, count, cache = sys.argv[1], int(sys.argv[2]), sys.argv[3]
if not os.path.isdir(folder):
    os.mkdir(folder)
    rng = np.random.default_rng(0)
    jpegs = []
    for i in range(100):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (12 + i % 9, 12, 3), np.uint8)).save(buffer, "JPEG")
        jpegs.append(buffer.getvalue())
    for shard in range(10):
        with tf.io.TFRecordWriter(f"{folder}/train-{shard:05d}-of-00010") as writer:
            for i in range(count // 10):
                image = jpegs[(i * 7 + shard) % 100]
                features = {"image/encoded": image, "image/class/label": 1 + i % 5}
                writer.write(encode_example(features))
source = cache_source(find_source(folder, "train"), cache)
options = InputOptions(image_size=8, batch_size=250, num_classes=5, num_workers=2)
loader = Loader(source, options, training=True)
process, resident = psutil.Process(), []
for epoch in range(10):
    total = sum(float(weights.numpy().sum()) for _, _, weights in loader.batches(epoch))
    assert total == count
    gc.collect()
    resident.append(process.memory_info().rss)
print(json.dumps(resident))
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("cache", ["none", "ram"])
def test_ten_epochs_take_no_more_memory_than_one(tmp_path_factory, monkeypatch, cache):
    folder = tmp_path_factory.getbasetemp() / "fifty-thousand"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.with_suffix(".cache")))
    command = [sys.executable, "-c", EPOCHS, str(folder), "50000", cache]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3500)
    assert done.returncode == 0, done.stderr[-4000:]
    resident = json.loads(done.stdout)
    assert resident[9] <= 1.05 * resident[0], resident
