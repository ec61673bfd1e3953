"""One training step: forward, backward, update, with batch norm's statistics and momentum.

All do the same work: images that lie ready in memory, cross-entropy with label smoothing, SGD with
momentum, no weight decay and no moving average. `dtype` is "float32" or "bfloat16": mixed
precision, with weights and loss in float32.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.worker import Contender

CLASSES, SMOOTHING, RATE, MOMENTUM = 1000, 0.1, 0.01, 0.9
KERAS_NAMES = {
    "efficientnet-b0": "EfficientNetB0",
    "efficientnet-b4": "EfficientNetB4",
    "resnet50": "ResNet50",
}
TIMM_NAMES = {
    "efficientnet-b0": "tf_efficientnet_b0",
    "efficientnet-b4": "tf_efficientnet_b4",
    "resnet50": "resnet50",
}


def random_batch(size: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `(batch, size, size, 3)` and labels int32 `(batch,)`, always the same."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
    return images, rng.integers(0, CLASSES, batch, dtype=np.int32)


def ours(arch: str, size: int, batch: int, dtype: str, **flags: Any) -> Contender:
    """`runtime.step.Step`, as the trainer builds it."""
    from runtime.config import Config
    from utils import device, distributed

    distributed.init()
    device.setup(local_rank=0, intraop_threads=None, interop_threads=None, tf32=True)
    import keras
    import tensorflow as tf

    from runtime.build import make_step
    from runtime.state import new_state

    keras.mixed_precision.set_dtype_policy(device.precision(False, dtype, gpu=False))
    config = Config(
        arch=arch,
        image_size=size,
        train_batch_size=batch,
        optimizer="momentum",
        momentum=MOMENTUM,
        label_smoothing=SMOOTHING,
        weight_decay=0.0,
        moving_average_decay=0.0,
        **flags,
    )
    step = make_step(config, new_state(config, num_classes=CLASSES), micro_steps=1)
    images, labels = random_batch(size, batch)
    one = tf.constant(images), tf.constant(labels), tf.ones(batch)

    def turn(count: int) -> None:
        for _ in range(count):
            sums = step([one], RATE)
        sums.numpy()

    turn(3)
    return Contender(turn, items=batch, facts={"tensorflow": tf.__version__})


def keras_fit(arch: str, size: int, batch: int, dtype: str, jit: bool = False) -> Contender:
    """keras.applications, `compile` and `fit`. The time is that between the ends of batches, so
    that what `fit` does at its beginning and end does not count.
    """
    import keras
    import tensorflow as tf

    keras.mixed_precision.set_dtype_policy("float32" if dtype == "float32" else f"mixed_{dtype}")
    model = getattr(keras.applications, KERAS_NAMES[arch])(
        weights=None,
        input_shape=(size, size, 3),
        classes=CLASSES,
        classifier_activation=None,
    )
    if model.dtype_policy.name != "float32":  # the loss in float32, as Keras' guide has it
        model = keras.Model(
            model.input, keras.layers.Activation("linear", dtype="float32")(model.output)
        )
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=SMOOTHING)
    model.compile(
        keras.optimizers.SGD(RATE, momentum=MOMENTUM),
        loss,
        metrics=["accuracy"],
        jit_compile=jit,
    )
    images, labels = random_batch(size, batch)
    one = tf.constant(images), tf.one_hot(labels, CLASSES)
    data = tf.data.Dataset.from_tensors(one).repeat()
    ends: list[float] = []

    class Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            ends.append(time.perf_counter())

    def turn(count: int) -> float:
        ends.clear()
        model.fit(data, steps_per_epoch=count + 1, verbose=0, callbacks=[Clock()])
        return ends[-1] - ends[0]

    turn(3)
    return Contender(turn, items=batch, facts={"keras": keras.__version__})


def timm_step(arch: str, size: int, batch: int, dtype: str, compiled: bool) -> Contender:
    """timm's model in PyTorch, channels last; with bfloat16 under autocast."""
    import timm
    import torch

    torch.manual_seed(0)
    model = timm.create_model(TIMM_NAMES[arch], num_classes=CLASSES)
    model = model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM, foreach=True)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    images, labels = random_batch(size, batch)
    x = torch.from_numpy((images / 127.5 - 1).astype(np.float32)).permute(0, 3, 1, 2)
    x, y = x.contiguous(memory_format=torch.channels_last), torch.from_numpy(labels).long()
    forward = torch.compile(model) if compiled else model

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            logits = forward(x)
        loss = criterion(logits.float(), y)
        loss.backward()
        optimizer.step()
        return loss

    def turn(count: int) -> None:
        for _ in range(count):
            step().item()

    turn(3)
    return Contender(
        turn, items=batch, facts={"torch": torch.__version__, "timm": timm.__version__}
    )
