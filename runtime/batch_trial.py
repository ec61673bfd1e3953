"""Trains a few steps with settings from another process, and reports their memory.

`auto_batch.py` starts it, as it may die if memory runs out.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from convoy.runtime.settings.config import Config, load_config
from convoy.runtime.settings.flags import AUTO
from convoy.runtime.settings.recomputation import NEARLY_FREE
from convoy.utils import strict_json
from convoy.utils.errors import UserError
from convoy.utils.machine.garbage import forget_models
from convoy.utils.machine.resources import PeakMemory, out_of_memory


def main() -> None:
    """Reads settings from standard input, and answers each line of JSON with another.

    The line has `peak` in bytes, null if memory ran out, or `error`.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)  # the user of this run should not see training's output
    with suppress(OSError):  # if memory runs out, the kernel should kill this process first
        Path("/proc/self/oom_score_adj").write_text("1000")
    config = _for_trials(load_config(sys.argv[1]))
    from convoy.runtime.set_up import prepare_backend, set_up
    from convoy.utils.signals import Requests

    prepare_backend(config, owns_process=False)
    set_up(config, Requests(), owns_process=False)
    for line in sys.stdin:
        answers.write(f"{strict_json.dumps(_try(config.with_(**json.loads(line))))}\n")
        answers.flush()


def _for_trials(config: Config) -> Config:
    """Returns the same training with respect to memory."""
    passes = config.grad_accum_steps or (2 if config.optimizer_batch_size else None)
    return config.with_(
        mode="train",
        nproc=None,
        prof=1,
        benchmark_warmup=1,
        optimizer_batch_size=None,
        grad_accum_steps=min(2, passes) if passes else None,
        resume_checkpoint=False,
        # A schedule depends on a run's length, which depends on the batch.
        warmup_epochs=0.0,
        lr_decay="constant",
        steps_per_epoch=None,
        early_stopping=None,
        trackers="none",
        enable_tensorboard=False,
        profile_steps=None,
        best_metric="top1",
        recompute=NEARLY_FREE if config.recompute == AUTO else config.recompute,
    )


def _try(config: Config) -> dict[str, Any]:
    from convoy.runtime.benchmark.training import train
    from convoy.utils.logging import RunLog
    from convoy.utils.machine import device

    forget_models(config.seed)
    memory = PeakMemory(device.has_gpu())
    try:
        train(config, RunLog())
    except UserError as error:
        return {"error": str(error)}
    except Exception as error:  # noqa: BLE001 — reported there
        return {"peak": None} if out_of_memory(error) else {"error": f"{error}"}
    return {"peak": memory.read()}


if __name__ == "__main__":
    main()
