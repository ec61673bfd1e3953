"""Training: build or restore the state, then one straight loop over epochs and steps."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from runtime import checkpoint
from runtime.build import better_weights, build_loader, build_training_model, model_arguments
from runtime.config import Config, ConfigError
from runtime.evaluate import evaluate, make_eval_step
from runtime.step import LossScale, Step, TrainState, batch_norm_statistics
from runtime.validate import schedule_arguments
from utils import distributed
from utils.ema import EMA
from utils.logging import Progress, RunLog, TensorBoardWriter
from utils.metrics import MeanAccumulator, Throughput
from utils.optimizers import make_optimizer
from utils.schedules import make_schedule, scaled_lr

log = logging.getLogger("convoy.train")

UNITS = {
    "train.loss": ("nats", ":.4f"),
    "train.lr": (None, ":.6f"),
    "train.top1": (None, ":.4f"),
    "train.top5": (None, ":.4f"),
    "train.total_ips": ("images/s", ":.1f"),
    "train.compute_ips": ("images/s", ":.1f"),
    "train.data_time": ("s", ":.5f"),
    "train.compute_time": ("s", ":.5f"),
    "training_loss": ("nats", ":.4f"),
    "training_accuracy_top_1": (None, ":.4f"),
    "training_accuracy_top_5": (None, ":.4f"),
    "avg_exp_per_second_training": ("images/s", ":.1f"),
    "avg_exp_per_second_training_per_GPU": ("images/s", ":.1f"),
}


class TrainingError(RuntimeError):
    """Training cannot go on. The text says where it stopped and why."""


@dataclass
class Journal:
    """Where rank 0 reports; on other ranks every part does nothing."""

    log: RunLog
    board: TensorBoardWriter
    progress: Progress | None = None

    def line(self, text: str) -> None:
        """Prints one line on rank 0."""
        if self.progress is not None:
            self.progress.console_line(text)

    def metrics(self, step: tuple[int, ...], values: dict[str, float], global_step: int) -> None:
        """Logs the values to the JSON log and TensorBoard."""
        self.log.log(step, values)
        self.board.scalars(values, global_step)


class Trainer:
    """One training run.

    Args:
        config: a validated config.
        run_log: where rank 0 writes; an inert one elsewhere.
        callbacks: `keras.callbacks.Callback`s, for users of the library; the command line passes
            none.
    """

    def __init__(
        self, config: Config, run_log: RunLog, callbacks: Sequence[keras.callbacks.Callback] = ()
    ) -> None:
        self.config = config
        self.chief = distributed.rank() == 0
        self.train_data = build_loader(config, "train")
        self.with_eval = config.mode == "train_and_eval"
        self.eval_data = (
            build_loader(config, "validation", self.train_data) if self.with_eval else None
        )
        self.global_batch = config.train_batch_size * distributed.size()
        self.micro_steps = self._micro_steps()
        self.images_per_step = self.global_batch * self.micro_steps
        self.steps_per_epoch = math.ceil(self.train_data.steps_per_epoch / self.micro_steps)
        self.state = self._new_state()
        self.step = Step(
            self.state,
            label_smoothing=config.label_smoothing,
            weight_decay=config.weight_decay,
            weight_decay_style=config.weight_decay_style,
            bn_weight_decay=config.bn_weight_decay,
            micro_steps=self.micro_steps,
            use_xla=config.use_xla,
            seed=config.seed,
        )
        self.eval_step = (
            make_eval_step(self.state.model, config.use_xla) if self.with_eval else None
        )
        scaled = (
            scaled_lr(config.lr_init, self.images_per_step, config.lr_base_batch)
            if config.lr_base_batch
            else config.lr_init
        )
        self.schedule = make_schedule(
            **schedule_arguments(config), base_lr=scaled, steps_per_epoch=self.steps_per_epoch
        )
        warmup = round(config.warmup_epochs * self.steps_per_epoch)
        # The first step compiles; a run shorter than its warm-up still gets a figure.
        self.throughput = Throughput(max(1, min(warmup, self._planned_steps() // 2)))
        self.journal = Journal(run_log, TensorBoardWriter(self._board_dir()))
        self.callbacks = keras.callbacks.CallbackList(list(callbacks), model=self.state.model)
        self.report: dict[str, float] = {}

    def _board_dir(self) -> str | None:
        return (
            f"{self.config.model_dir}/tensorboard"
            if self.chief and self.config.enable_tensorboard
            else None
        )

    def _micro_steps(self) -> int:
        wanted = self.config.optimizer_batch_size
        if wanted is None:
            return 1
        if wanted % self.global_batch:
            raise ConfigError(
                f"--optimizer_batch_size {wanted} is no multiple of {self.global_batch}, the"
                " images of one pass"
                f" (--train_batch_size {self.config.train_batch_size} × {distributed.size()}"
                " processes)"
            )
        return wanted // self.global_batch

    def _last_epoch(self) -> int:
        end = self.config.max_epochs
        if self.config.run_epochs is not None:
            end = min(end, self.state.epoch + self.config.run_epochs)
        return end

    def _planned_steps(self) -> int:
        steps = (self._last_epoch() - self.state.epoch) * self.steps_per_epoch
        return min(steps, self.config.prof) if self.config.prof else steps

    # ---- state
    # ----------------------------------------------------------------------------------------------

    def _new_state(self) -> TrainState:
        config = self.config
        model = build_training_model(config, self.train_data.num_classes)
        distributed.broadcast_variables(model.weights)
        optimizer = make_optimizer(
            config.optimizer,
            momentum=config.momentum,
            nesterov=config.nesterov,
            rho=config.decay,
            epsilon=config.epsilon,
            beta_1=config.beta_1,
            beta_2=config.beta_2,
        )
        optimizer.build(model.trainable_variables)
        half = keras.config.dtype_policy().name == "mixed_float16"
        state = TrainState(model, optimizer, LossScale(config.loss_scale, half))
        if config.moving_average_decay:
            state.ema = EMA(model.weights, config.moving_average_decay)
        if config.resume_checkpoint:
            self._restore(state)
        return state

    def _restore(self, state: TrainState) -> None:
        def find() -> checkpoint.Checkpoint | None:
            newest = checkpoint.latest(self.config.model_dir)
            return checkpoint.read(newest) if newest else None

        # Read by rank 0 alone: only its node needs to see model_dir, and all ranks start from one
        # checkpoint.
        saved = distributed.on_rank0(find)
        if saved is None:
            if self.chief:
                print(
                    f"no checkpoint in {self.config.model_dir} yet: starting from the beginning",
                    flush=True,
                )
            return
        built, arguments = (
            saved.state["model"],
            model_arguments(self.config, self.train_data.num_classes),
        )
        if built != arguments:
            changed = sorted(k for k in {*built, *arguments} if built.get(k) != arguments.get(k))
            raise ConfigError(
                f"--resume_checkpoint: {saved.path} holds another model; it differs in"
                f" {', '.join(changed)}"
                " (give the same flags as before, or another --model_dir)"
            )
        checkpoint.assign(state.model.weights, saved.model, "weight")
        checkpoint.assign(state.optimizer.variables, saved.optimizer, "optimizer variable")
        if state.ema is not None:
            if saved.ema:
                state.ema.load(saved.ema)
            else:
                state.ema.reset()
        state.loss_scale.load(saved.state["loss_scale"])
        state.step, state.epoch, state.offset = (
            saved.state[k] for k in ("step", "epoch", "offset")
        )
        state.best = saved.state["best"]
        self.train_data.bad_examples.update(
            {int(number): reason for number, reason in saved.state["bad_examples"].items()}
        )
        if self.chief:
            print(
                f"resuming from {saved.path}: epoch {state.epoch + 1}, step {state.step}",
                flush=True,
            )

    def save(self) -> None:
        """Writes a checkpoint of the state as it is; rank 0 writes, and its error is every rank's.

        The caller has averaged the running statistics over ranks.
        """
        state = self.state

        def write() -> None:
            contents = checkpoint.Checkpoint(
                model=checkpoint.variables_to_arrays(state.model.weights),
                ema=state.ema.state() if state.ema else {},
                optimizer=checkpoint.variables_to_arrays(state.optimizer.variables),
                state={
                    "step": state.step,
                    "epoch": state.epoch,
                    "offset": state.offset,
                    "examples": state.epoch * self.train_data.num_examples + state.offset,
                    "loss_scale": state.loss_scale.state(),
                    "best": state.best,
                    "bad_examples": self.train_data.bad_examples,
                    "better_weights": better_weights(self.report),
                    "metrics": {k: v for k, v in self.report.items() if math.isfinite(v)},
                    "model": model_arguments(self.config, self.train_data.num_classes),
                    "class_names": self.train_data.class_names,
                },
                config=self.config.to_yaml(),
            )
            folder = checkpoint.save(self.config.model_dir, contents)
            if state.best.get("step") == state.step:
                checkpoint.mark_best(self.config.model_dir, folder, state.best)
            if not self.config.gather_checkpoints:
                checkpoint.prune(self.config.model_dir)

        distributed.on_rank0(write)

    # ---- the loop
    # -------------------------------------------------------------------------------------------

    def run(self) -> dict[str, float]:
        """Trains to the last epoch of this launch and returns the figures of the run's summary."""
        config, state = self.config, self.state
        for name, (unit, form) in UNITS.items():
            self.journal.log.metadata(name, unit, form)
        if self.chief:
            self.journal.progress = Progress(
                total_epochs=config.max_epochs,
                steps_per_epoch=self.steps_per_epoch,
                log_steps=config.log_steps,
            )
        last_epoch, done = self._last_epoch(), 0
        if state.epoch >= last_epoch:
            self.journal.line(
                f"nothing left to train: {state.epoch} of {config.max_epochs} epochs are done"
            )
        self.step.seed_randomness()
        self.callbacks.on_train_begin()
        try:
            while state.epoch < last_epoch and (config.prof is None or done < config.prof):
                done += self._train_epoch(None if config.prof is None else config.prof - done)
                self._after_epoch(last=state.epoch >= last_epoch)
        finally:
            self.journal.board.close()
            if self.journal.progress is not None:
                self.journal.progress.close()
        self._check_replicas()
        self.callbacks.on_train_end()
        return self._summary()

    def _train_epoch(self, limit: int | None) -> int:
        """Trains the rest of the current epoch, at most `limit` steps; returns the number of
        steps.
        """
        state = self.state
        epoch_sums, window, steps = MeanAccumulator(), _Window(), 0
        self.callbacks.on_epoch_begin(state.epoch)
        batches = self.train_data.batches(state.epoch, state.offset)
        while limit is None or steps < limit:
            start = time.perf_counter()
            micro_batches = list(islice(batches, self.micro_steps))
            if not micro_batches:
                break
            micro_batches += [_without_weight(micro_batches[-1])] * (
                self.micro_steps - len(micro_batches)
            )
            ready = time.perf_counter()
            lr = self.schedule(state.step)
            sums = self.step(micro_batches, lr)
            sums = sums.numpy()  # waits for the device, so that the times below are true
            end = time.perf_counter()
            steps += 1
            state.offset += self.images_per_step
            epoch_sums.update(sums)
            window.add(sums, ready - start, end - ready)
            self.throughput.add(self.images_per_step, ready - start, end - ready)
            self._report_step(window, lr)
            self.callbacks.on_train_batch_end(steps - 1)
        if isinstance(batches, Iterator) and hasattr(batches, "close"):
            batches.close()
        whole_epoch = (
            limit is None
            or steps < limit
            or state.offset >= self.steps_per_epoch * self.images_per_step
        )
        total = MeanAccumulator.from_array(distributed.all_sum(epoch_sums.as_array())).result()
        self._check_finite(total["loss"], state.step - steps)
        self._share_bad_examples()
        self._average_statistics()
        if whole_epoch:
            state.epoch, state.offset = state.epoch + 1, 0
        self.report |= {
            "training_loss": total["loss"],
            "training_accuracy_top_1": total["top1"],
            "training_accuracy_top_5": total["top5"],
        }
        values = {
            "train.loss": total["loss"],
            "train.top1": total["top1"],
            "train.top5": total["top5"],
        }
        values["train.lr"] = self.schedule(max(0, state.step - 1))
        values |= {f"train.{k}": v for k, v in window.epoch_figures(self.images_per_step).items()}
        self.journal.metrics((state.epoch,), values, state.step)
        self.callbacks.on_epoch_end(
            state.epoch - 1, {"loss": total["loss"], "accuracy": total["top1"]}
        )
        return steps

    def _report_step(self, window: _Window, lr: float) -> None:
        state, progress = self.state, self.journal.progress
        if progress is not None and progress.due(state.step):
            mean = window.mean.result()
            progress.update(
                state.step,
                loss=mean["loss"],
                top1=mean["top1"],
                lr=lr,
                images_per_second=window.figures(self.images_per_step)["total_ips"],
            )
        if state.step % self.config.log_steps == 0 or state.step == 1:
            # The mean over ranks needs an exchange; every rank comes here in the same step.
            mean = MeanAccumulator.from_array(distributed.all_sum(window.mean.as_array())).result()
            self._check_finite(mean["loss"], state.step - window.steps)
            values = {"train.loss": mean["loss"], "train.top1": mean["top1"], "train.lr": lr}
            values |= {f"train.{k}": v for k, v in window.figures(self.images_per_step).items()}
            self.journal.metrics((state.epoch + 1, state.step), values, state.step)
            window.restart()

    def _check_finite(self, loss: float, since: int) -> None:
        if math.isnan(loss) or math.isinf(loss):
            raise TrainingError(
                f"the training loss became {loss} between steps {since + 1} and {self.state.step};"
                " lower --lr_init, lengthen --warmup_epochs, or go on from the last checkpoint"
                " with --resume_checkpoint"
            )

    def _share_bad_examples(self) -> None:
        """Every rank learns which examples the others could not read.

        An example that is left out stays out, on whichever rank the next epoch puts it, and in a
        run that is resumed: the checkpoint keeps the list.
        """
        bad = self.train_data.bad_examples
        for others in distributed.all_gather_object(dict(bad)):
            bad.update(others)
        allowed = self.config.max_bad_examples
        allowed = int(allowed if allowed >= 1 else allowed * self.train_data.num_examples)
        if len(bad) > allowed:
            raise TrainingError(
                f"{len(bad)} training images cannot be read, over all processes;"
                f" --max_bad_examples allows {allowed}. The first:"
                f" {'; '.join(list(bad.values())[:3])}"
            )
        if bad:
            self.journal.line(
                f"{len(bad)} unreadable training images are left out"
                f" (--max_bad_examples allows {allowed})"
            )

    def _average_statistics(self) -> None:
        """Running statistics of batch norm, and their moving averages, become their mean over
        ranks.
        """
        statistics = batch_norm_statistics(self.state.model)
        distributed.average_variables(statistics)
        if self.state.ema is not None:
            shadows = self.state.ema.shadows
            distributed.average_variables([shadows[v.path] for v in statistics])

    def _after_epoch(self, last: bool) -> None:
        config, state = self.config, self.state
        if self.eval_data is not None and (
            last or state.epoch % config.num_epochs_between_eval == 0
        ):
            self._evaluate()
        is_best = state.best.get("step") == state.step
        if not config.no_checkpoints and (
            last or is_best or state.epoch % config.save_checkpoint_freq == 0
        ):
            self.save()

    def _evaluate(self) -> None:
        state = self.state
        values = evaluate(self.eval_step, self.eval_data.batches(0), self.config.eval_batch_size)
        if state.ema is not None:
            with state.ema.swap():
                averaged = evaluate(
                    self.eval_step, self.eval_data.batches(0), self.config.eval_batch_size
                )
            values |= {
                k.replace("eval_", "eval_ema_", 1): v
                for k, v in averaged.items()
                if k.startswith("eval_")
            }
        self.report |= values
        raw = values["eval_accuracy_top_1"]
        top1 = max(raw, values.get("eval_ema_accuracy_top_1", raw))
        if top1 > state.best.get("value", -1.0):
            state.best = {
                "metric": "eval_accuracy_top_1",
                "value": top1,
                "epoch": state.epoch,
                "step": state.step,
            }
            state.best["weights"] = better_weights(self.report)
        values |= {
            "val.loss": values["eval_loss"],
            "val.top1": raw,
            "val.top5": values["eval_accuracy_top_5"],
        }
        self.journal.metrics((state.epoch,), values, state.step)
        text = f"epoch {state.epoch}/{self.config.max_epochs}"
        text += f"  eval loss {values['eval_loss']:.3f}  top-1 {100 * raw:.2f}%"
        if state.ema is not None:
            text += f"  ema {100 * values['eval_ema_accuracy_top_1']:.2f}%"
        self.journal.line(text + f"  best {100 * state.best['value']:.2f}%")

    def _summary(self) -> dict[str, float]:
        figures = self.throughput.summary()
        self.report |= {
            "avg_exp_per_second_training": figures["total_ips"],
            "avg_exp_per_second_training_per_GPU": figures["total_ips"] / distributed.size(),
        }
        return dict(self.report)

    def _check_replicas(self) -> None:
        """Every rank must hold the same weights, bit for bit.

        Raises:
            TrainingError: they differ, which no number reported so far would survive.
        """
        digest = hashlib.sha256()
        for variable in self.state.model.weights:
            digest.update(variable.value.numpy().tobytes())
        digests = distributed.all_gather(np.frombuffer(digest.digest(), np.uint8)[None])
        if not (digests == digests[0]).all():
            raise TrainingError("the processes ended with different weights; please report this")


class _Window:
    """Sums and times since the last log line, and of the whole epoch."""

    def __init__(self) -> None:
        self.all_steps, self.all_data, self.all_compute = 0, 0.0, 0.0
        self.restart()

    def restart(self) -> None:
        self.mean, self.steps, self.data, self.compute = MeanAccumulator(), 0, 0.0, 0.0

    def add(self, sums: np.ndarray, data: float, compute: float) -> None:
        self.mean.update(sums)
        self.steps, self.data, self.compute = (
            self.steps + 1,
            self.data + data,
            self.compute + compute,
        )
        self.all_steps += 1
        self.all_data, self.all_compute = self.all_data + data, self.all_compute + compute

    def figures(self, images: int) -> dict[str, float]:
        """Means per step since the last log line: images/s and seconds."""
        return _figures(images, self.steps, self.data, self.compute)

    def epoch_figures(self, images: int) -> dict[str, float]:
        """The same over the epoch."""
        return _figures(images, self.all_steps, self.all_data, self.all_compute)


def _figures(images: int, steps: int, data: float, compute: float) -> dict[str, float]:
    steps = max(steps, 1)
    return {
        "total_ips": images * steps / max(data + compute, 1e-9),
        "compute_ips": images * steps / max(compute, 1e-9),
        "data_time": data / steps,
        "compute_time": compute / steps,
    }


def _without_weight(batch: Any) -> Any:
    """A batch of real images that counts for nothing, to fill up the last update of an epoch."""
    images, labels, weights = batch
    return images, labels, tf.zeros_like(weights)
