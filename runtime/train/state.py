"""Restores the `TrainState` from a checkpoint that it finds, and copies it into one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from convoy.dataloader.data_loader import DataLoader
from convoy.runtime.data import changed_data
from convoy.runtime.run_folder import checkpoint, which_checkpoint
from convoy.runtime.run_folder.arrays import assign, variables_to_arrays
from convoy.runtime.run_folder.checkpoint import Checkpoint, CheckpointError
from convoy.runtime.settings.config import Config
from convoy.runtime.train.best import better_weights, finite
from convoy.runtime.train.sizes import Last
from convoy.runtime.train.step import TrainState, batch_norm_statistics
from convoy.runtime.train.sums import Sums
from convoy.utils.distributed import ranks


@dataclass
class Commit:
    """The state from which an elastic job continues after a change of its processes.

    Attributes:
        saved: the state, from `snapshot`.
        last: the last epoch and the last step of this launch.
    """

    saved: Checkpoint
    last: Last


def find_saved(config: Config, say: Callable[[str], None]) -> Checkpoint | None:
    """Returns the newest complete checkpoint in `--model_dir`, or None if nothing was saved yet.

    Only rank 0 reads it, so only its node needs access to the folder, and all ranks start alike.

    Args:
        config: the flags.
        say: prints a line about damaged checkpoints.

    Raises:
        CheckpointError: there are checkpoints, and all are damaged.
    """

    def find() -> Checkpoint | None:
        newest = checkpoint.latest(config.model_dir)
        damaged = which_checkpoint.passed_over(config.model_dir, newest)
        for line in damaged:
            say(line)
        if newest is None and damaged:
            raise CheckpointError(
                f"--resume_checkpoint: every checkpoint in {config.model_dir} is damaged, as listed"
                " above: restore copies of them, or start again in another --model_dir"
            )
        return checkpoint.read(newest) if newest else None

    return ranks.on_rank0(find)


def starting_point(
    config: Config, commit: Commit | None, say: Callable[[str], None]
) -> Checkpoint | None:
    """Returns where a launch starts: the commit, or if requested the newest checkpoint, or None.

    Args:
        config: the flags.
        commit: the state that an elastic job keeps in memory.
        say: prints a line.
    """
    if commit:
        return commit.saved
    return find_saved(config, say) if config.resume_checkpoint else None


def restore(
    state: TrainState,
    saved: Checkpoint,
    data: DataLoader,
    say: Callable[[str], None] = lambda text: None,
) -> Sums:
    """Restores a checkpoint into the state, and its list of unreadable examples into the data.

    Args:
        state: changed in place.
        saved: the checkpoint.
        data: the training loader.
        say: prints a line about data that have changed.

    Returns:
        This rank's saved sums, or zeros at the beginning of an epoch.

    Raises:
        CheckpointError: it lacks a variable.
    """
    assign(state.model.weights, saved.model, "weight")
    assign(state.optimizer.variables, saved.optimizer, "optimizer variable")
    if state.ema is not None:
        if saved.ema:
            state.ema.load(saved.ema)
        else:
            state.ema.reset()
    state.loss_scale.load(saved.state["loss_scale"])
    state.step, state.epoch, state.offset = (saved.state[k] for k in ("step", "epoch", "offset"))
    other_classes = changed_data.classes_changed(saved.state, data.class_names)
    state.best = {} if other_classes else saved.state["best"]
    state.waited = 0 if other_classes else saved.state.get("waited", 0)
    state.class_weights = saved.state.get("class_weights")
    state.left_out = [tuple(stretch) for stretch in saved.state.get("left_out", [])]
    changed = changed_data.changes(saved.state, data)
    if changed and state.left_out:
        state.left_out = []
        changed.append(
            "examples that --nan_rollback left out are used again, because the data changed"
        )
    bad_examples, others = changed_data.recall(data.source, saved.state["bad_examples"])
    data.bad_examples.update(bad_examples)
    for line in (*changed, *others):
        say(line)
    return _restore_ranks(state, saved)


def snapshot(
    state: TrainState,
    config: Config,
    data: DataLoader,
    metrics: dict[str, float],
    sums: Sums | None = None,
    whole: bool = True,
) -> Checkpoint | None:
    """Copies everything that training changes, for `Saver.save`. Changes nothing.

    All ranks must call it: in the middle of an epoch (`state.offset`), each rank has its own
    running statistics and sums of metrics. The checkpoint stores each rank's, so that the same
    number of ranks continues bit for bit, and their mean, for other numbers of ranks and for
    evaluation.

    Args:
        state: the state to copy.
        config: the flags.
        data: the training loader.
        metrics: the run's latest figures.
        sums: this rank's metric sums of the unfinished epoch.
        whole: False for a rank that keeps nothing: it only sends its own part to the others.

    Returns:
        The copy; None if `whole` is False.
    """
    arrays = variables_to_arrays(
        state.model.weights if whole else batch_norm_statistics(state.model)
    )
    ema = state.ema.state(None if whole else arrays) if state.ema else {}
    of_ranks: dict[str, np.ndarray] = {}
    bad_examples = dict(data.bad_examples)  # a copy, because the loader keeps filling its own
    if state.offset:
        for others in ranks.all_gather_object(dict(bad_examples)):
            bad_examples.update(others)
        of_ranks = _gather_ranks(state, arrays, ema, sums or Sums.none())
    if not whole:
        return None
    return Checkpoint(
        model=arrays,
        ema=ema,
        optimizer=variables_to_arrays(state.optimizer.variables),
        ranks=of_ranks,
        state=_facts(state, metrics, config.best_metric)
        | {
            "bad_examples": changed_data.remember(data, bad_examples),
            "class_names": data.class_names,
            "data": changed_data.facts(data),
        },
        config=config.to_yaml(),
    )


def _gather_ranks(
    state: TrainState, arrays: dict[str, np.ndarray], ema: dict[str, np.ndarray], sums: Sums
) -> dict[str, np.ndarray]:
    """Gathers what differs between ranks within an epoch, for `_restore_ranks`.

    Replaces the running statistics in `arrays` and `ema` by their mean over ranks.
    """
    of_ranks: dict[str, np.ndarray] = {}
    names = [v.path for v in batch_norm_statistics(state.model)]
    for part, values in (("statistics", arrays), ("ema_statistics", ema)):
        if values and names:
            of_ranks[part] = ranks.all_gather(_flat(values, names)[None])
            _unflatten(of_ranks[part].mean(axis=0, dtype=np.float64), values, names)
    of_ranks["counters"] = ranks.all_gather(sums.as_array()[None])
    return of_ranks


def _facts(state: TrainState, metrics: dict[str, float], best_metric: str) -> dict[str, Any]:
    """Returns the state's plain values, as `state.json` holds them."""
    return {
        "step": state.step,
        "epoch": state.epoch,
        "offset": state.offset,
        "processes": ranks.size(),
        "loss_scale": state.loss_scale.state(),
        "best": state.best,
        "left_out": state.left_out,
        "class_weights": state.class_weights,
        "score": None,  # evaluation follows, and adds it (`checkpoint.add_score`)
        "better_weights": better_weights(metrics, state.ema is not None, best_metric),
        "waited": state.waited,
        "metrics": finite(metrics),
        "model": state.arguments,
    }


def _restore_ranks(state: TrainState, saved: Checkpoint) -> Sums:
    """Restores this rank's own part in the middle of an epoch."""
    own = saved.ranks
    if not own:
        return Sums.none()
    if len(own["counters"]) != ranks.size():
        # Statistics are already the mean; one rank continues with everybody's sums.
        everybody = Sums.from_array(own["counters"].sum(axis=0))
        return everybody if ranks.rank() == 0 else Sums.none()
    rank, statistics = ranks.rank(), batch_norm_statistics(state.model)
    if "statistics" in own:
        _assign_flat(own["statistics"][rank], statistics)
    if state.ema is not None and "ema_statistics" in own:
        shadows = state.ema.shadows
        _assign_flat(own["ema_statistics"][rank], [shadows[v.path] for v in statistics])
    return Sums.from_array(own["counters"][rank])


def _flat(arrays: dict[str, np.ndarray], names: list[str]) -> np.ndarray:
    return np.concatenate([arrays[name].ravel() for name in names])


def _unflatten(flat: np.ndarray, arrays: dict[str, np.ndarray], names: list[str]) -> None:
    start = 0
    for name in names:
        old = arrays[name]
        arrays[name] = flat[start : start + old.size].reshape(old.shape).astype(old.dtype)
        start += old.size


def _assign_flat(flat: np.ndarray, variables: list[Any]) -> None:
    start = 0
    for variable in variables:
        size = int(np.prod(variable.shape))
        variable.assign(flat[start : start + size].reshape(variable.shape))
        start += size


def average_statistics(state: TrainState) -> None:
    """Replaces batch norm's running statistics, and their averages, by their mean over ranks."""
    statistics = batch_norm_statistics(state.model)
    ranks.average_variables(statistics)
    if state.ema is not None:
        shadows = state.ema.shadows
        ranks.average_variables([shadows[v.path] for v in statistics])


def replicas_agree(state: TrainState) -> bool:
    """Returns whether all ranks have the same weights, bit for bit.

    Batch norm's running statistics differ between ranks until the end of an epoch averages them.
    """
    own = {v.path for v in batch_norm_statistics(state.model)} if state.offset else set()
    digest = hashlib.sha256()
    for variable in state.model.weights:
        if variable.path not in own:
            digest.update(variable.value.numpy().tobytes())
    digests = ranks.all_gather(np.frombuffer(digest.digest(), np.uint8)[None])
    return bool((digests == digests[0]).all())


def figures_of(saved: Checkpoint | None, has_ema: bool) -> dict[str, float]:
    """Returns the latest figures of a checkpoint's run, without those of an average now gone."""
    metrics = saved.state["metrics"] if saved else {}
    return {n: v for n, v in metrics.items() if has_ema or not n.startswith("eval_ema_")}
