"""Trains with one straight loop over epochs and steps."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

import keras
import numpy as np

from convoy.runtime.builders.inputs import micro_steps
from convoy.runtime.builders.progressive_stages import loader_of_stage, set_dropout, stage_settings
from convoy.runtime.data.changed_data import with_classes_of
from convoy.runtime.data.class_weights import class_weights
from convoy.runtime.evaluate.evaluate import Abandoned
from convoy.runtime.run_folder.ownership import Owner
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flags import batch_number
from convoy.runtime.settings.learning_rate import build_schedule
from convoy.runtime.trackers.workers import Trackers
from convoy.runtime.train.bad_examples import share_bad_examples
from convoy.runtime.train.changes import check_resumed, go_on
from convoy.runtime.train.evaluation import Evaluations
from convoy.runtime.train.journal import (
    COUNTERS,
    Journal,
    Window,
    epoch_figures,
    of_a_run,
    of_training,
    sums_of,
)
from convoy.runtime.train.keeper import Keeper
from convoy.runtime.train.not_finite import Health, NotFinite, TrainingError
from convoy.runtime.train.objective import make_step
from convoy.runtime.train.outcome import Ended
from convoy.runtime.train.overview import overview
from convoy.runtime.train.profiling import Profiler
from convoy.runtime.train.rollback import is_left_out, roll_back
from convoy.runtime.train.state import (
    Commit,
    average_statistics,
    figures_of,
    new_state,
    replicas_agree,
    starting_point,
)
from convoy.runtime.train.step import Step, without_weight
from convoy.runtime.train.warnings import Doubts
from convoy.utils.distributed import ranks
from convoy.utils.logging import RunLog
from convoy.utils.metrics import Throughput
from convoy.utils.signals import Requests, Wishes, stop_if_asked
from convoy.utils.text import tell
from convoy.utils.watchdog import watchdog


class Trainer:
    """One training run.

    Args:
        config: a validated config.
        run_log: rank 0's log; an inert one elsewhere.
        callbacks: `keras.callbacks.Callback`s from users of the library.
        memory: for an elastic job (`utils.distributed.elastic.Memory`): receives commits, and has
            the one from which the run continues.
        requests: records signals that ask for a stop; None: signals have their usual effect.
        trackers: rank 0's trackers; the caller closes them.
        owner: rank 0's claim to the run's folder; the caller releases it.

    Raises:
        Preempted: a signal came.
    """

    def __init__(
        self,
        config: Config,
        run_log: RunLog,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        memory: Any = None,
        requests: Requests | None = None,
        trackers: Trackers | None = None,
        owner: Owner | None = None,
    ) -> None:
        self.config, self.memory = config, memory
        self.chief = ranks.rank() == 0
        self.requests = requests or Requests()
        self.stage = stage_settings(config, 0)
        commit: Commit | None = memory.contents if memory else None
        self.saved = saved = starting_point(config, commit, self._say)
        adapt = with_classes_of(saved.state, config, self._say) if saved else None
        self.train_data = data = loader_of_stage(config, self.stage, adapt=adapt)
        self.images_per_pass = batch_number(config.train_batch_size) * ranks.size()
        self.micro_steps = micro_steps(config)
        self.images_per_step = self.images_per_pass * self.micro_steps
        self.steps_per_epoch = math.ceil(self.train_data.steps_per_epoch / self.micro_steps)
        self.schedule = build_schedule(config, self.images_per_step, self.steps_per_epoch)
        self._stop_if_asked("before its first step")
        changes = check_resumed(saved, config, self.images_per_step, self.steps_per_epoch)
        self.state = new_state(config, data.num_classes, saved, self._say, data.class_names)
        # Sums of an epoch and a log window that had already begun.
        self._counters = go_on(self.state, saved, config, data, changes, self._say)
        self._usual = 0.0  # seconds of the last step
        set_dropout(self.state.model, self.stage)
        self.step, self.health = self._make_step()
        self.last_epoch, self.last_step = ends = commit.ends if commit else self._ends()
        # The first step compiles; a run shorter than its warm-up still gets a figure.
        warmup = min(self.schedule.warmup_steps, self._planned_steps() // 2)
        self.throughput = Throughput(max(1, warmup))
        self.journal, self.profiler = Journal(run_log, trackers or Trackers()), Profiler(config)
        self.callbacks = keras.callbacks.CallbackList(list(callbacks), model=self.state.model)
        self.report = figures_of(saved, self.state.ema is not None)
        self.entered = False  # whether the launch's first stage was announced
        self._stop_if_asked("before its first step")
        evaluated = saved is not None and saved.state.get("score") is not None
        self.evaluations = Evaluations(
            config, self.state, data, self.journal, self.requests.asked_to_stop, evaluated
        )
        sizes = {"images_per_step": self.images_per_step, "steps_per_epoch": self.steps_per_epoch}
        self.doubts = Doubts(config, self.state, data, self.schedule, self.steps_per_epoch)
        doubts = [] if saved else self.doubts.of_data(self.evaluations.data)
        about = overview(config, self.state, self.schedule, self.micro_steps, **sizes)
        for line in (*about, *doubts):
            self._say(line)
        places: dict[str, Any] = {"memory": memory, "requests": self.requests, "owner": owner}
        self.keeper = Keeper(
            config, self.state, **places, sizes=sizes, ends=ends, warn=self.journal.line
        )

    def report_to(self, run_log: RunLog) -> None:
        """Sets the log for `run`, if it is opened only once the run is known to be possible."""
        self.journal.log = run_log

    def _say(self, text: str) -> None:
        if self.chief:
            tell(text, sys.stdout)

    def _make_step(self) -> tuple[Step, Health]:
        data = self.train_data
        weights = class_weights(self.config, data)
        step = make_step(self.config, self.state, self.micro_steps, data.prepare, weights)
        return step, Health(step)

    def _enter_stage(self) -> None:
        """Sets sizes, augmentation and dropout for the current epoch's stage."""
        config, state = self.config, self.state
        stage = stage_settings(config, state.epoch)
        if stage != self.stage:
            self.train_data = loader_of_stage(config, stage, self.train_data)
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
        """Returns the last epoch and the last step of this launch."""
        epochs = self.config.run_epochs or self.config.max_epochs
        last_epoch = min(self.config.max_epochs, self.state.epoch + epochs)
        return last_epoch, self.state.step + (self.config.prof or math.inf)

    def _planned_steps(self) -> int:
        steps = (self.last_epoch - self.state.epoch) * self.steps_per_epoch
        return int(min(steps, self.last_step - self.state.step))

    def run(self) -> dict[str, float]:
        """Trains to the last epoch of this launch and returns the figures of the run's summary.

        Raises:
            TrainingError, DataError, CheckpointError: the text says why; saved checkpoints stay
                complete.
        """
        state = self.state
        self.journal.begin(self.chief, self.config, self.steps_per_epoch)
        if self._is_over():
            self.journal.line(f"nothing left to train: {state.epoch} epochs are done")
        self.step.seed_randomness()
        self.callbacks.on_train_begin()
        try:
            self._stop_if_asked("before its first step")
            if self.evaluations.missing(self.saved, self.last_epoch):
                self.journal.line(
                    f"epoch {state.epoch} was saved and not evaluated: doing that now"
                )
                self._evaluate(kept=True)
            while not self._is_over():
                self._enter_stage()
                try:
                    epoch, window, asked = self._train_epoch()
                except NotFinite as failure:
                    self._go_back(failure)
                else:
                    self._end_epoch(epoch, window, asked)
            self.keeper.finish()
            self._stop_if_asked("after its last epoch")
        except BaseException:
            self.keeper.abandon()
            raise
        finally:
            self.profiler.close()
            self.journal.close()
        if not replicas_agree(state):
            raise TrainingError("the processes ended with different weights; please report this")
        self.callbacks.on_train_end()
        rates, failed = self.throughput.summary(), len(self.evaluations.failures)
        return self.report | of_a_run(rates["total_ips"], failed)

    def _is_over(self) -> bool:
        ended = self.state.epoch >= self.last_epoch or self.state.step >= self.last_step
        return ended or self.evaluations.exhausted

    def _train_epoch(self) -> tuple[Window, Window, Wishes]:
        """Trains the rest of the current epoch, but not beyond the launch's last step.

        Returns:
            The sums of the epoch and of the log window, and the ranks' wishes in the epoch's last
            step.
        """
        state = self.state
        epoch, window = Window(self.images_per_step), Window(self.images_per_step)
        epoch.mean.update(self._counters[:4])
        window.mean.update(self._counters[4:])
        window.shared.update(ranks.all_sum(self._counters[4:]) / ranks.size())
        self._counters, asked = np.zeros(COUNTERS), Wishes()
        self.callbacks.on_epoch_begin(state.epoch)
        batches = self.train_data.batches(state.epoch, state.offset)
        while state.step < self.last_step:
            self.profiler.begin(state.step + 1)
            start = time.perf_counter()
            watchdog.await_data(f"waiting for the data of step {state.step + 1}")
            micro_batches = list(islice(batches, self.micro_steps))
            if not micro_batches:
                break
            missing = self.micro_steps - len(micro_batches)
            micro_batches += [without_weight(micro_batches[-1])] * missing
            if is_left_out(state, self.images_per_step):
                self.step.pass_over()
                state.offset += self.images_per_step
                continue
            ready = time.perf_counter()
            lr = self.schedule.rate(self._place())
            regroup = bool(self.memory and self.memory.hosts_changed())
            wishes = (*self.requests.wishes(), regroup)
            sums = self.step(micro_batches, lr, wishes, self._is_logged(state.step + 1))
            sums = sums.numpy()  # waits, so that the times are correct
            end = time.perf_counter()
            self._usual, self.requests.at_stake = end - start, True
            state.offset += self.images_per_step
            self.health.check(micro_batches)
            for counter in (epoch, window):
                counter.add(sums, self.step, ready - start, end - ready)
            self.throughput.add(self.images_per_step, ready - start, end - ready)
            # The log may be on a slow disk.
            watchdog.mark(f"reporting step {state.step}", 10.0, self._usual)
            window = self._report_step(window, lr)
            asked = Wishes(*self.step.granted)
            if state.offset < self.train_data.epoch_length:
                self._grant(asked, epoch, window)
                asked = Wishes()
            watchdog.mark(f"in the callbacks of step {state.step}", 10.0, self._usual)
            self.callbacks.on_train_batch_end(epoch.steps - 1)
        watchdog.rest("ending an epoch")
        batches.close()
        if state.offset >= self.train_data.epoch_length:
            state.epoch, state.offset = state.epoch + 1, 0
        return epoch, window, asked

    def _end_epoch(self, epoch: Window, window: Window, asked: Wishes) -> None:
        """Saves first, and then does what may fail or take long: evaluation, and the wishes of the
        last step.

        Args:
            epoch, window, asked: from `_train_epoch`.

        Raises:
            TrainingError: more training images are unreadable than allowed.
            Preempted: a signal came.
        """
        config, state, due = self.config, self.state, self.evaluations.due(self.last_epoch)
        values = epoch_figures(epoch, self.schedule.rate(max(0, self._place() - 1)))
        self.report |= of_training(values)
        text, error = share_bad_examples(self.train_data, config.max_bad_examples)
        kept = self._is_over() or asked.stop or asked.save or error is not None
        if state.offset:  # --prof ended within the epoch
            self._counters = sums_of(epoch, window)
        else:
            average_statistics(state)
            kept |= state.epoch % config.save_checkpoint_freq == 0
        counters = self._counters if state.offset else None
        try:
            self.journal.epoch(state, values)
            logs = {"loss": values["train.loss"], "accuracy": values["train.top1"]}
            self.callbacks.on_epoch_end(state.epoch - (not state.offset), logs)
        except BaseException:  # from the user's callbacks
            self._save(counters)
            raise
        self._save(counters, to_disk=kept)
        for line in filter(None, [text, *self.doubts.of_epoch(values["train.loss"])]):
            self.journal.line(line)
        if error is not None:
            raise error
        if kept:
            self.keeper.secure()
        if asked.stop:
            self._stop(f"after step {state.step}")
        if asked.regroup:
            self.memory.regroup()
        if due:
            self._evaluate(kept)

    def _go_back(self, failure: NotFinite) -> None:
        """Goes back to the last good checkpoint; raises TrainingError if that is not wanted."""
        line, self._counters = roll_back(
            self.state,
            failure,
            times=0 if self.config.no_checkpoints else self.config.nan_rollback,
            images=self.images_per_step,
            model_dir=self.config.model_dir,
            saver=self.keeper.saver,
            data=self.train_data,
        )
        self.journal.line(line)
        self.step.seed_randomness()
        self.health = Health(self.step)
        self._save(self._counters, to_disk=False)

    def _place(self) -> int:
        """Returns the position in the schedule, in updates of the current batch size; computed from
        epoch and offset, so it survives a change of batch or ranks.
        """
        done = math.ceil(self.state.offset / self.images_per_step)
        return self.state.epoch * self.steps_per_epoch + done

    def _grant(self, asked: Wishes, epoch: Window, window: Window) -> None:
        """Within an epoch, saves, stops or regroups if any rank asked. All ranks must call it."""
        due = bool(self.memory and self.memory.due(self.state.step))
        if any(asked) or due:
            self._save(sums_of(epoch, window), to_disk=asked.stop or asked.save)
        if asked.stop:
            self._stop(f"after step {self.state.step}")
        if asked.regroup:
            self.memory.regroup()

    def _stop(self, when: str) -> None:
        """Raises Preempted, once everything is saved."""
        self.keeper.finish(stopping=True)
        self._stop_if_asked(when)

    def _stop_if_asked(self, when: str) -> None:
        stop_if_asked(self.requests, when, not self.config.no_checkpoints)

    def _save(self, counters: np.ndarray | None = None, to_disk: bool = True) -> None:
        """Starts to save the present state; see `Keeper.save`."""
        self.keeper.save(self.train_data, self.report, counters, to_disk)

    def _report_step(self, window: Window, lr: float) -> Window:
        """Shows a step if one is due; returns the window for the next step."""
        state, logged = self.state, self._is_logged(self.state.step)
        self.journal.step(state, self._place(), window, lr, self.step.gradient_norm, logged)
        return Window(self.images_per_step) if logged else window

    def _is_logged(self, step: int) -> bool:
        return step == 1 or step % self.config.log_steps == 0

    def _evaluate(self, kept: bool) -> None:
        """Evaluates the weights and their average, and adds the result to their checkpoint.

        Args:
            kept: whether they were saved; otherwise they are saved if they are the best, or if the
                run ends here.
        """
        try:
            found = self.evaluations.make(self.report)
        except BaseException as error:
            if not kept:
                self._save()
            if isinstance(error, Abandoned):
                self._stop(f"while epoch {self.state.epoch} was evaluated")
            raise
        if found is not None:
            (facts, is_best), over = found, self._is_over()
            for line in self.doubts.of_evaluation(self.evaluations, self.report, over):
                self.journal.line(line)
            wanted = kept or is_best or self.evaluations.exhausted
            if wanted and not kept:
                self._save()
            self.keeper.add_score(facts, is_best, to_disk=wanted)

    def ended(self) -> Ended:
        """Returns the facts about the run for its final report."""
        made = self.evaluations
        return Ended(self.config, self.state, self.report, made.epoch, made.exhausted)
