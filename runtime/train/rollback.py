"""Goes back to the last good checkpoint when a loss or gradient is not finite.

Repeated from there, a run would reach the same step with the same bits and fail again. So from then
on it leaves out the images of the failed step: the step counts, but computes and changes nothing.
Checkpoints store the list, so a resumed run skips them too.
"""

from __future__ import annotations

import numpy as np

from convoy.dataloader.data_loader import DataLoader
from convoy.runtime.run_folder import checkpoint
from convoy.runtime.run_folder.background_saver import Saver
from convoy.runtime.run_folder.checkpoint import Checkpoint
from convoy.runtime.train.not_finite import NotFinite, TrainingError
from convoy.runtime.train.state import restore
from convoy.runtime.train.step import TrainState
from convoy.runtime.train.sums import Sums
from convoy.utils.distributed import ranks


def roll_back(
    state: TrainState,
    failure: NotFinite,
    *,
    times: int,
    images: int,
    model_dir: str,
    saver: Saver | None,
    data: DataLoader,
) -> tuple[str, Sums]:
    """Restores the last good checkpoint into the state.

    All ranks must call it, at the end of the failed step.

    Args:
        state: changed in place.
        failure: the error of the failed step.
        times: how often a run may do this; the count is in the checkpoint.
        images: images per step, over all ranks.
        model_dir: the run's folder.
        saver: rank 0's saver; a running save is finished first.
        data: the training loader, for the list of unreadable examples.

    Returns:
        A line for the user, and this rank's sums at the checkpoint.

    Raises:
        TrainingError: this happened too often, or there is no good checkpoint yet.
    """
    if len(state.left_out) >= times:
        tried = f" (--nan_rollback {times}: it went back {times} times already)" if times else ""
        raise TrainingError(f"{failure}{tried}") from failure
    stretch = (state.epoch, state.offset - images, state.offset)

    def find() -> Checkpoint | None:
        if saver:
            saver.settle()
        return last_good(model_dir)

    saved = ranks.on_rank0(find)
    if saved is None:
        raise TrainingError(
            f"{failure}. --nan_rollback has nothing to go back to: no checkpoint was saved yet"
            " (--checkpoint_every_minutes saves within epochs)"
        ) from failure
    failed = state.step
    left_out, best = [*state.left_out, stretch], state.best
    sums = restore(state, saved, data)
    state.left_out, state.best = left_out, best  # an older launch's may be by another metric
    line = (
        f"WARNING: {str(failure).partition(';')[0]}: going back to step {state.step}, and"
        f" leaving out the {images} images of step {failed} from now on (rollback"
        f" {len(left_out)} of {times})"
    )
    return line, sums


def last_good(model_dir: str) -> Checkpoint | None:
    """Returns the newest complete checkpoint with only finite numbers.

    Removes newer ones, as a run that continues before them writes its own under their names.
    """
    while newest := checkpoint.latest(model_dir):
        saved = checkpoint.read(newest)
        if all(_finite(saved, part) for part in checkpoint.ARRAYS):
            return saved
        checkpoint.remove(newest)
    return None


def _finite(saved: Checkpoint, part: str) -> bool:
    return all(np.isfinite(array).all() for array in getattr(saved, part).values())


def is_left_out(state: TrainState, images: int) -> bool:
    """Returns whether the next step of `images` images touches examples that are left out."""
    start, end = state.offset, state.offset + images
    return any(
        epoch == state.epoch and first < end and start < last
        for epoch, first, last in state.left_out
    )
