"""Trains in elastic jobs: processes come and go, and training continues from memory.

A commit is the same `Checkpoint` as on the disk, kept in every process's memory. When a process
dies, or hosts come or go, the remaining ones regroup (`utils.distributed.elastic`), rank 0 sends
its commit to all, and a new `Trainer` continues from it, like a run that resumes from disk with
another number of processes: the number is part of its traced functions, schedule and loaders.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from convoy.runtime.run_folder.fresh_folder import fresh_model_dir
from convoy.runtime.settings.config import Config
from convoy.utils.distributed import ranks
from convoy.utils.distributed.elastic import Memory, run
from convoy.utils.machine.garbage import forget_models


def train(config: Config, attempt: Callable[[Memory], dict[str, Any]]) -> dict[str, Any]:
    """Trains to the end, whichever processes come and go.

    Args:
        config: the flags.
        attempt: makes a Trainer that continues from the memory's commit, and runs it.

    Returns:
        The figures of the last attempt.
    """
    memory = Memory(config.elastic_commit_steps)

    def go_on() -> dict[str, Any]:
        if ranks.rank() == 0 and memory.size_before is not None:
            print(story(memory), flush=True)
        if not memory.contents:
            ranks.on_rank0(lambda: fresh_model_dir(config))
        memory.lost = False
        return attempt(memory)

    return run(go_on, memory, lambda: forget_models(config.seed))


def story(memory: Memory) -> str:
    """Describes in one line what changed, and what it cost."""
    before, now = memory.size_before, ranks.size()
    sizes = f"now {now} {'process' if now == 1 else 'processes'} instead of {before}"
    if not memory.contents:
        return f"rank lost before the first commit: starting again; {sizes}"
    step = memory.contents.saved.state["step"]
    if not memory.lost:
        return f"hosts changed: continuing after step {step}; {sizes}"
    steps = memory.reached - step
    went_back = f"went back {steps} {'step' if steps == 1 else 'steps'} to step {step}"
    return f"rank lost: {went_back if steps else f'continuing after step {step}'}; {sizes}"
