"""Training: one straight loop over epochs and steps."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

import keras
import numpy as np

from convoy.runtime.bad_examples import share_bad_examples
from convoy.runtime.build import build_loader, make_step, micro_steps
from convoy.runtime.class_matching import numbered_like
from convoy.runtime.config import Config
from convoy.runtime.confusion import make_counting_step
from convoy.runtime.health import Health, NotFinite, TrainingError
from convoy.runtime.journal import COUNTERS, RANK_TIMES, UNITS, Journal, Window, sums_of
from convoy.runtime.profiling import Profiler
from convoy.runtime.requests import Requests, preempted, requeue
from convoy.runtime.resumed_data import with_classes_of
from convoy.runtime.rollback import is_left_out, roll_back
from convoy.runtime.saver import Saver
from convoy.runtime.schedules import build_schedule
from convoy.runtime.stages import of_stage, set_dropout, stage_settings
from convoy.runtime.state import (
    Commit,
    average_statistics,
    new_state,
    replicas_agree,
    restore,
    snapshot,
    starting_point,
    what_changes,
)
from convoy.runtime.step import Step, without_weight
from convoy.runtime.trackers import Trackers
from convoy.runtime.validation import better_top1, epoch_line, evaluate_state
from convoy.utils import distributed, watchdog
from convoy.utils.logging import RunLog
from convoy.utils.metrics import MeanAccumulator, Throughput
from convoy.utils.progress import Progress


class Trainer:
    """One training run.

    Args:
        config: a validated config.
        run_log: where rank 0 writes; an inert one elsewhere.
        callbacks: `keras.callbacks.Callback`s, for users of the library; the command line passes
            none.
        memory: of an elastic job (`utils.elastic.Memory`): where commits go, and with the one from
            which the run goes on.
        requests: notes signals that ask for a stop; None: signals have their usual effect.
        trackers: where else rank 0 reports; the caller ends them.
    """

    def __init__(
        self,
        config: Config,
        run_log: RunLog,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        memory: Any = None,
        requests: Requests | None = None,
        trackers: Trackers | None = None,
    ) -> None:
        self.config, self.memory = config, memory
        self.chief = distributed.rank() == 0
        self.stage = stage_settings(config, 0)
        commit: Commit | None = memory.contents if memory else None
        saved = starting_point(config, commit)
        adapt = with_classes_of(saved.state, config, self._say) if saved else None
        self.train_data = build_loader(of_stage(config, self.stage), "train", adapt=adapt)
        self.eval_data = None
        self.images_per_pass = config.train_batch_size * distributed.size()
        self.micro_steps = micro_steps(config)
        self.images_per_step = self.images_per_pass * self.micro_steps
        self.steps_per_epoch = math.ceil(self.train_data.steps_per_epoch / self.micro_steps)
        self.schedule = build_schedule(config, self.images_per_step, self.steps_per_epoch)
        self.state = new_state(config, self.train_data.num_classes, saved, self._say)
        self._counters = np.zeros(COUNTERS)  # sums of an epoch and a log window begun before
        self._usual = 0.0  # seconds of the last step
        if saved is not None:
            data, counters = self.train_data, self._counters
            self._counters = restore(self.state, saved, data, counters, self._say)
            at = f"epoch {self.state.epoch + 1}, step {self.state.step}"
            self._say(f"resuming from {saved.path or 'memory'}: {at}")
            steps = self.images_per_step, self.steps_per_epoch
            for line in what_changes(saved.state, config, *steps):
                self._say(line)
        elif config.resume_checkpoint:
            self._say(f"no checkpoint in {config.model_dir} yet: starting from the beginning")
        if config.mode == "train_and_eval":
            adapt = numbered_like(self.train_data, f"--data_dir {config.data_dir}")
            self.eval_data = build_loader(config, "validation", self.train_data, adapt=adapt)
            self.eval_step = make_counting_step(config, self.state.model)
        set_dropout(self.state.model, self.stage)
        self.step, self.health = self._make_step()
        if config.recipe:
            self._say(
                f"{config.recipe}: {self.images_per_step} images per update, {self.micro_steps} x"
                f" {self.images_per_pass}; the learning rate rises to {self.schedule.peak:g}"
            )
        self.last_epoch, self.last_step = commit.ends if commit else self._ends()
        # The first step compiles; a run shorter than its warm-up still gets a figure.
        warmup = min(self.schedule.warmup_steps, self._planned_steps() // 2)
        self.throughput = Throughput(max(1, warmup))
        self.journal, self.profiler = Journal(run_log, trackers or Trackers()), Profiler(config)
        self.callbacks = keras.callbacks.CallbackList(list(callbacks), model=self.state.model)
        self.report: dict[str, float] = dict(saved.state["metrics"]) if saved else {}
        self.entered = False  # whether the first stage of this launch was announced
        self.saver = None
        if self.chief and not config.no_checkpoints:
            keep = None if config.gather_checkpoints else config.keep_checkpoints
            self.saver = Saver(
                config.model_dir, keep_last=keep, keep_best=config.keep_best, warn=self.journal.line
            )
        # One clock decides, rank 0's.
        self.requests = requests or Requests()
        self.requests.save_every(config.checkpoint_every_minutes if self.saver else None)

    def _say(self, text: str) -> None:
        if self.chief:
            print(text, flush=True)

    def _make_step(self) -> tuple[Step, Health]:
        step = make_step(self.config, self.state, self.micro_steps, self.train_data.prepare)
        return step, Health(step)

    def _enter_stage(self) -> None:
        """Makes sizes, augmentation and dropout those of the current epoch's stage."""
        config, state = self.config, self.state
        stage = stage_settings(config, state.epoch)
        if stage != self.stage:
            bad_examples = self.train_data.bad_examples
            classes, source = self.train_data.num_classes, self.train_data.source
            self.train_data = build_loader(
                of_stage(config, stage), "train", num_classes=classes, source=source
            )
            self.train_data.bad_examples.update(bad_examples)
            set_dropout(state.model, stage)
            self.stage = stage
            self.step, self.health = self._make_step()
            self.step.seed_randomness()
        elif self.entered:
            return
        self.entered = True
        if config.n_stages > 1 or config.mix_off_epoch is not None:
            self.journal.line(stage.describe(config.n_stages, state.epoch))

    def _ends(self) -> tuple[int, float]:
        """The epoch and the step that this launch does not go beyond."""
        epochs = self.config.run_epochs or self.config.max_epochs
        last_epoch = min(self.config.max_epochs, self.state.epoch + epochs)
        return last_epoch, self.state.step + (self.config.prof or math.inf)

    def _planned_steps(self) -> int:
        steps = (self.last_epoch - self.state.epoch) * self.steps_per_epoch
        return int(min(steps, self.last_step - self.state.step))

    def run(self) -> dict[str, float]:
        """Trains to the last epoch of this launch and returns the figures of the run's summary.

        Raises:
            TrainingError, DataError, CheckpointError: in plain words; what was saved stays whole.
        """
        config, state = self.config, self.state
        for name, (unit, form) in UNITS.items():
            self.journal.log.metadata(name, unit, form)
        if self.chief:
            self.journal.progress = Progress(
                total_epochs=config.max_epochs,
                steps_per_epoch=self.steps_per_epoch,
                log_steps=config.log_steps,
            )
        if state.epoch >= self.last_epoch:
            self.journal.line(f"nothing left to train: {state.epoch} epochs are done")
        self.step.seed_randomness()
        self.callbacks.on_train_begin()
        try:
            self._stop_if_asked("before its first step")
            while state.epoch < self.last_epoch and state.step < self.last_step:
                self._enter_stage()
                try:
                    self._train_epoch()
                except NotFinite as failure:
                    self._go_back(failure)
                else:
                    self._after_epoch()
            distributed.on_rank0(self.saver.finish if self.saver else lambda: None)
        except BaseException:
            if self.saver:
                watchdog.rest("ending a save after an error")
                self.saver.abandon()
            raise
        finally:
            self.profiler.close()
            self.journal.close()
        if not replicas_agree(state):
            raise TrainingError("the processes ended with different weights; please report this")
        self.callbacks.on_train_end()
        return self._summary()

    def _train_epoch(self) -> None:
        """Trains the rest of the current epoch, but not beyond the last step."""
        state = self.state
        epoch, window = Window(self.images_per_step), Window(self.images_per_step)
        epoch.mean.update(self._counters[:4])
        window.mean.update(self._counters[4:])
        self._counters = np.zeros(COUNTERS)
        self.callbacks.on_epoch_begin(state.epoch)
        batches = self.train_data.batches(state.epoch, state.offset)
        while state.step < self.last_step:
            self.profiler.begin(state.step + 1)
            start = time.perf_counter()
            times = 1.0 if epoch.steps else 10.0  # an input pipeline starts slowly
            watchdog.mark(f"waiting for the data of step {state.step + 1}", times, self._usual)
            micro_batches = list(islice(batches, self.micro_steps))
            if not micro_batches:
                break
            micro_batches += [without_weight(micro_batches[-1])] * (
                self.micro_steps - len(micro_batches)
            )
            if is_left_out(state, self.images_per_step):
                self.step.pass_over()
                state.offset += self.images_per_step
                continue
            ready = time.perf_counter()
            lr = self.schedule.rate(self._place())
            regroup = bool(self.memory and self.memory.hosts_changed())
            wishes = (*self.requests.wishes(), regroup)
            sums = self.step(micro_batches, lr, wishes, self._is_logged(state.step + 1))
            sums = sums.numpy()  # waits, so that the times are true
            end = time.perf_counter()
            self._usual = end - start
            state.offset += self.images_per_step
            self.health.check(micro_batches)
            for counter in (epoch, window):
                counter.add(sums, ready - start, end - ready, self.step.own_seconds)
            self.throughput.add(self.images_per_step, ready - start, end - ready)
            watchdog.mark(f"reporting step {state.step}", 10.0, self._usual)  # to slow disks, too
            window = self._report_step(window, lr)
            self._grant(epoch, window)
            watchdog.mark(f"in the callbacks of step {state.step}", 10.0, self._usual)
            self.callbacks.on_train_batch_end(epoch.steps - 1)
        watchdog.rest("ending an epoch")
        batches.close()
        if state.offset >= self.steps_per_epoch * self.images_per_step or not micro_batches:
            state.epoch, state.offset = state.epoch + 1, 0
        self._report_epoch(epoch)
        if text := share_bad_examples(self.train_data, self.config.max_bad_examples):
            self.journal.line(text)
        if state.offset:
            self._counters = sums_of(epoch, window)
        else:
            average_statistics(state)

    def _go_back(self, failure: NotFinite) -> None:
        """To the last good checkpoint; raises TrainingError where that is not wanted."""
        line, self._counters = roll_back(
            self.state,
            failure,
            times=0 if self.config.no_checkpoints else self.config.nan_rollback,
            images=self.images_per_step,
            model_dir=self.config.model_dir,
            saver=self.saver,
            data=self.train_data,
        )
        self.journal.line(line)
        self.step.seed_randomness()
        self.health = Health(self.step)
        self._save(counters=self._counters, to_disk=False)

    def _place(self) -> int:
        """Where the schedule stands, in steps of this batch. It goes by epochs and examples, so
        that it is the same place when a run goes on with another number of processes.
        """
        done = math.ceil(self.state.offset / self.images_per_step)
        return self.state.epoch * self.steps_per_epoch + done

    def _grant(self, epoch: Window, window: Window) -> None:
        """Saves, stops and regroups where any rank asked for it; every rank comes here alike.

        Raises:
            Preempted: a signal came.
        """
        stop, save, regroup = self.step.granted
        due = bool(self.memory and self.memory.due(self.state.step))
        if stop or save or regroup or due:
            self._save(counters=sums_of(epoch, window), to_disk=stop or save)
        if not stop:
            if regroup:
                self.memory.regroup()
            return
        watchdog.rest("writing the last checkpoint")
        distributed.on_rank0(self.saver.finish if self.saver else lambda: None)
        self._stop_if_asked(f"after step {self.state.step}")

    def _stop_if_asked(self, when: str) -> None:
        """Every rank comes here; what there is to save is saved.

        Raises:
            Preempted: a signal came on any of them.
        """
        signals = distributed.all_gather_object(self.requests.signal)
        if any(signals):
            queued = requeue() if self.chief and self.config.requeue else ""
            raise preempted(signals, when, not self.config.no_checkpoints, queued)

    def _save(
        self, score: float | None = None, counters: np.ndarray | None = None, to_disk: bool = True
    ) -> None:
        """Begins to save the state as it is, in the memory of an elastic job as well, or only
        there; every rank has to come here.
        """
        to_disk &= not self.config.no_checkpoints
        if not (to_disk or self.memory):
            return
        state, best = self.state, self.state.best
        with watchdog.patient("saving a checkpoint"):
            contents = snapshot(state, self.config, self.train_data, self.report, score, counters)
            contents.state["images_per_step"] = self.images_per_step
            contents.state["steps_per_epoch"] = self.steps_per_epoch
            if self.memory:
                self.memory.contents = Commit(contents, (self.last_epoch, self.last_step))
            if to_disk:
                self.requests.saved()
            if to_disk and self.saver:
                self.saver.save(contents, best if best.get("step") == state.step else None)

    def _report_step(self, window: Window, lr: float) -> Window:
        """Shows a step where one is due; returns the window that the next step counts in."""
        state, progress = self.state, self.journal.progress
        # In steps of this launch, whatever was done before on more or fewer processes.
        if progress is not None and progress.due(place := self._place()):
            mean = window.mean.result()
            progress.update(
                place,
                loss=mean["loss"],
                top1=mean["top1"],
                lr=lr,
                images_per_second=window.figures()["train.total_ips"],
            )
        if not self._is_logged(state.step):
            return window
        # The mean over ranks needs an exchange; every rank comes here in the same step.
        values = self._means(window) | {"train.lr": lr} | window.figures()
        values["train.grad_norm"] = self.step.gradient_norm
        self.journal.metrics((state.epoch + 1, state.step), values, state.step)
        return Window(self.images_per_step)

    def _is_logged(self, step: int) -> bool:
        return step == 1 or step % self.config.log_steps == 0

    def _report_epoch(self, epoch: Window) -> None:
        state = self.state
        values = self._means(epoch) | {"train.lr": self.schedule.rate(max(0, self._place() - 1))}
        self.report |= {
            "training_loss": values["train.loss"],
            "training_accuracy_top_1": values["train.top1"],
            "training_accuracy_top_5": values["train.top5"],
        }
        ended = not state.offset  # else --prof did within it
        if ended:
            times = distributed.all_gather(epoch.rank_times()).T.round(6).tolist()
            values |= epoch.figures() | dict(zip(RANK_TIMES, times, strict=True))
            self.journal.metrics((state.epoch,), values, state.step)
        logs = {"loss": values["train.loss"], "accuracy": values["train.top1"]}
        self.callbacks.on_epoch_end(state.epoch - ended, logs)

    def _means(self, window: Window) -> dict[str, float]:
        """The window's metrics over all ranks' examples."""
        sums = distributed.all_sum(window.mean.as_array())
        means = MeanAccumulator.from_array(sums).result()
        return {f"train.{name}": value for name, value in means.items()}

    def _after_epoch(self) -> None:
        """Evaluates and saves where it is time to. Running statistics are averaged already."""
        config, state = self.config, self.state
        if state.offset:  # --prof ended within an epoch
            self._save(counters=self._counters)
            return
        last, score = state.epoch >= self.last_epoch, None
        if self.eval_data is not None and (
            last or not state.epoch % config.num_epochs_between_eval
        ):
            score = self._evaluate()
        is_best = state.best.get("step") == state.step
        if last or is_best or state.epoch % config.save_checkpoint_freq == 0:
            self._save(score)

    def _evaluate(self) -> float:
        """Evaluates the weights and their average; returns the better top-1."""
        state = self.state
        batches, size = lambda: self.eval_data.batches(0), self.config.eval_batch_size
        values = evaluate_state(state, self.eval_step, batches, size, self.journal.trackers)
        self.report |= {k: v for k, v in values.items() if not k.startswith("val.")}
        self.journal.metrics((state.epoch,), values, state.step)
        self.journal.line(epoch_line(values, state, self.config.max_epochs))
        return better_top1(values)

    def _summary(self) -> dict[str, float]:
        throughput = self.throughput.summary()["total_ips"]
        self.report["avg_exp_per_second_training"] = throughput
        self.report["avg_exp_per_second_training_per_GPU"] = throughput / distributed.size()
        return dict(self.report)
