"""Runs training steps: forward pass, backward pass and update.

All contenders do the same work: images that are already in memory, batch norm with moving
statistics, cross-entropy with label smoothing, SGD with momentum, no weight decay, no moving
average of weights.

`dtype` is "float32" (TensorFloat-32 on GPUs that have it), "bfloat16" or "float16". The last two
are mixed precision: weights and loss are float32, and float16 has dynamic loss scaling. Contenders
use the GPU if there is one; with `need_gpu`, they fail without one.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.contenders.pytorch import import_torch
from benchmarks.harness.contender import Contender

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
    """Returns random images uint8 `(batch, size, size, 3)` and labels int32 `(batch,)`.

    The same arguments give the same batch.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
    return images, rng.integers(0, CLASSES, batch, dtype=np.int32)


def set_up(dtype: str, need_gpu: bool) -> None:
    """Configures TensorFlow as Convoy does.

    Raises:
        RuntimeError: `need_gpu`, and TensorFlow sees no GPU.
    """
    from convoy.utils.distributed import ranks
    from convoy.utils.machine import device

    device.prefer_onednn()
    ranks.init()
    device.setup(local_rank=0, intraop_threads=None, interop_threads=None, tf32=True)
    import keras

    check_gpu(need_gpu)
    keras.mixed_precision.set_dtype_policy(device.precision(False, dtype, gpu=False))


def check_gpu(needed: bool) -> None:
    """Raises RuntimeError if a GPU is needed and TensorFlow sees none.

    Without this check, a batch meant for a GPU would take minutes on the CPU.
    """
    import tensorflow as tf

    if needed and not tf.config.list_physical_devices("GPU"):
        raise RuntimeError(
            "TensorFlow sees no GPU: is it a build with CUDA, and are CUDA's libraries found?"
            " TF_CPP_MIN_LOG_LEVEL=0 tells which are missing"
        )


def on_device(value: Any) -> Any:
    """Copies a tensor, or a structure of tensors, to the GPU's memory if TensorFlow has a GPU."""
    import tensorflow as tf

    gpu = tf.config.list_logical_devices("GPU")
    with tf.device("GPU:0" if gpu else "CPU:0"):
        return tf.nest.map_structure(tf.identity, value)


def device_memory() -> dict[str, float]:
    """Returns `device_mib`, TensorFlow's peak GPU memory in MiB; empty without a GPU."""
    import tensorflow as tf

    if not tf.config.list_logical_devices("GPU"):
        return {}
    return {"device_mib": tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20}


def ours(
    arch: str,
    size: int,
    batch: int,
    dtype: str,
    need_gpu: bool = False,
    natively: bool = True,
    **flags: Any,
) -> Contender:
    """Runs `runtime.train.step.Step` as the trainer builds it.

    Args:
        natively: use the C++ operations in `model/native/`.
        flags: further fields of `Config`.
    """
    set_up(dtype, need_gpu)
    import tensorflow as tf

    from convoy.model import native
    from convoy.runtime.settings.config import Config
    from convoy.runtime.train.new_state import new_state
    from convoy.runtime.train.objective import make_step

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
    if not natively:
        native.operations = lambda *_: None
    step = make_step(config, new_state(config, num_classes=CLASSES), micro_steps=1)
    images, labels = random_batch(size, batch)
    one = on_device((tf.constant(images), tf.constant(labels), tf.ones(batch)))

    def turn(count: int) -> None:
        for _ in range(count):
            step([one], RATE)

    turn(3)
    facts = {"tensorflow": tf.__version__}
    return Contender(turn, items=batch, facts=facts, measures=device_memory)


def keras_fit(
    arch: str, size: int, batch: int, dtype: str, jit: bool = False, need_gpu: bool = False
) -> Contender:
    """Runs keras.applications with `compile` and `fit`.

    It measures from the end of the first batch to the end of the last, to exclude the start and
    end of `fit`.
    """
    import keras
    import tensorflow as tf

    check_gpu(need_gpu)
    keras.mixed_precision.set_dtype_policy("float32" if dtype == "float32" else f"mixed_{dtype}")
    model = getattr(keras.applications, KERAS_NAMES[arch])(
        weights=None,
        input_shape=(size, size, 3),
        classes=CLASSES,
        classifier_activation=None,
    )
    if model.dtype_policy.name != "float32":  # computes the loss in float32, as in Keras' guide
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
    facts = {"keras": keras.__version__, "tensorflow": tf.__version__}
    return Contender(turn, items=batch, facts=facts, measures=device_memory)


def timm_step(
    arch: str, size: int, batch: int, dtype: str, compiled: bool, need_gpu: bool = False
) -> Contender:
    """Runs timm's model in PyTorch, channels last, with autocast for mixed precision.

    On GPUs it follows PyTorch's tuning guide: cuDNN benchmarks its algorithms, matrix products and
    convolutions use TensorFloat-32, and the update is one fused kernel (which also avoids waiting
    for the check of the loss scale).
    """
    torch = import_torch()
    import timm

    cuda = torch.cuda.is_available()
    if need_gpu and not cuda:
        raise RuntimeError(f"PyTorch {torch.__version__} sees no GPU: is it a build with CUDA?")
    if cuda:
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    place = torch.device("cuda" if cuda else "cpu")
    torch.manual_seed(0)
    model = timm.create_model(TIMM_NAMES[arch], num_classes=CLASSES)
    model = model.to(place, memory_format=torch.channels_last).train()
    kind = {"fused": True} if cuda else {"foreach": True}
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM, **kind)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    images, labels = random_batch(size, batch)
    x = torch.from_numpy((images / 127.5 - 1).astype(np.float32)).permute(0, 3, 1, 2)
    x = x.to(place).contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(labels).long().to(place)
    forward = torch.compile(model) if compiled else model
    mixed = dtype != "float32"
    short = getattr(torch, dtype if mixed else "bfloat16")
    scaler = torch.amp.GradScaler(place.type, enabled=dtype == "float16")

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(place.type, short, enabled=mixed):
            logits = forward(x)
        loss = criterion(logits.float(), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    def turn(count: int) -> None:
        for _ in range(count):
            loss = step()
        loss.item()  # waits for the device

    def memory() -> dict[str, float]:
        return {"device_mib": torch.cuda.max_memory_allocated() / 2**20} if cuda else {}

    turn(3)
    facts = {"torch": torch.__version__, "timm": timm.__version__}
    return Contender(turn, items=batch, facts=facts, measures=memory)
