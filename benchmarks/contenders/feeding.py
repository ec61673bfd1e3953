"""Trains on photographs from disk, and on one batch in the device's memory for comparison.

The settings come from the document's recipe (optimizer, moving average, weight decay and others),
with AutoAugment and the trainer's loader. If the CPU prepares batches too slowly, the GPU waits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain, count, repeat
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.contenders.photographs import prepared
from benchmarks.contenders.training import CLASSES, device_memory, on_device, set_up
from benchmarks.harness.contender import Contender

if TYPE_CHECKING:
    from convoy.runtime.settings.config import Config

RATE = 1e-4  # small, so that the loss stays finite: a step with another loss skips its update
ENDLESS = 10**9  # steps per epoch, so that no timing includes an epoch's end


def ours(
    arch: str,
    size: int,
    batch: int,
    dtype: str,
    augment_on: str,
    photographs: str,
    need_gpu: bool = False,
) -> Contender:
    """Returns the trainer's step, compiled with XLA, and its loader as a contender.

    It measures two further figures: `resident`, the images/s of the same step on a batch in the
    GPU's memory (with `augment_on="device"`, the step includes augmentation), and `wait_ms`, how
    long a step waits for its batch.

    Args:
        photographs: folder with the photographs; created if missing.
    """
    set_up(dtype, need_gpu)
    import tensorflow as tf

    from convoy.dataloader import native
    from convoy.runtime.builders.inputs import build_loader
    from convoy.runtime.train.new_state import new_state
    from convoy.runtime.train.objective import make_step

    config = _config(arch, size, batch, augment_on, photographs)
    data = build_loader(config, "train")
    step = make_step(config, new_state(config, CLASSES), micro_steps=1, prepare=data.prepare)
    batches = chain.from_iterable(data.batches(epoch) for epoch in count())
    resident = on_device(next(batches))
    found: dict[str, float] = {}

    def run(source: Iterator, steps: int) -> tuple[float, float]:
        """Returns the seconds that the steps take, and the seconds that they wait for batches."""
        waited, start = 0.0, time.perf_counter()
        for _ in range(steps):
            before = time.perf_counter()
            one = next(source)
            waited += time.perf_counter() - before
            step([one], RATE)
        return time.perf_counter() - start, waited

    def turn(steps: int) -> float:
        found["resident"] = steps * batch / run(repeat(resident), steps)[0]
        run(batches, steps)  # uses up the batches that were prefetched meanwhile
        seconds, waited = run(batches, steps)
        found["wait_ms"] = 1e3 * waited / steps
        return seconds

    turn(3)
    facts = {"tensorflow": tf.__version__, "native input operations": native.status()}
    return Contender(turn, items=batch, facts=facts, measures=lambda: found | device_memory())


def _config(arch: str, size: int, batch: int, augment_on: str, photographs: str) -> Config:
    """Returns the settings of the document's recipe, for these photographs."""
    from convoy.runtime.settings.config import Config, defaults
    from convoy.runtime.settings.recipes import lookup

    recipe = lookup(arch, "AMP", "DGXA100").recipe.settings
    here = {
        "arch": arch,
        "image_size": size,
        "train_batch_size": batch,
        "data_backend": "tfdata",
        "data_dir": str(prepared(Path(photographs)) / "records"),
        "num_classes": CLASSES,
        "steps_per_epoch": ENDLESS,
        "augmenter_name": "autoaugment",
        "mixup_alpha": 0.0,
        "augment_on": augment_on,
        "use_xla": True,
    }
    return Config(**(defaults(arch) | recipe | here))
