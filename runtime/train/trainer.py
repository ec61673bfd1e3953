"""Trains with one straight loop over epochs and steps."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import keras

from convoy.dataloader.data_loader import Batch
from convoy.runtime.builders.progressive_stages import loader_of_stage, set_dropout, stage_settings
from convoy.runtime.data.class_weights import changed_weights, class_weights
from convoy.runtime.evaluate.evaluate import Abandoned
from convoy.runtime.run_folder.ownership import Owner
from convoy.runtime.settings.config import Config
from convoy.runtime.trackers.workers import Trackers
from convoy.runtime.train.after_step import AfterStep, FinishedStep
from convoy.runtime.train.bad_examples import share_bad_examples
from convoy.runtime.train.earlier_best import find_earlier_best
from convoy.runtime.train.epoch_evaluations import Evaluations
from convoy.runtime.train.figures import Figures, of_a_run, of_training
from convoy.runtime.train.journal import Journal, StepLog
from convoy.runtime.train.not_finite import Health, NotFinite, TrainingError
from convoy.runtime.train.objective import make_step
from convoy.runtime.train.outcome import Ended
from convoy.runtime.train.overview import overview
from convoy.runtime.train.profiling import Profiler
from convoy.runtime.train.rollback import is_left_out, roll_back
from convoy.runtime.train.start import begin
from convoy.runtime.train.state import average_statistics, figures_of, replicas_agree
from convoy.runtime.train.state_keeper import Keeper
from convoy.runtime.train.step import Step, without_weight
from convoy.runtime.train.sums import Sums
from convoy.runtime.train.user_callbacks import UserCallbacks
from convoy.runtime.train.warnings import Doubts
from convoy.runtime.train.wishes import WishesOfRanks
from convoy.utils.distributed import ranks
from convoy.utils.logging import RunLog
from convoy.utils.metrics import Throughput
from convoy.utils.optional import known
from convoy.utils.signals import Requests, Wishes, stop_if_asked
from convoy.utils.text import tell
from convoy.utils.watchdog import watchdog

if TYPE_CHECKING:  # it loads Horovod
    from convoy.utils.distributed.elastic import Memory


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
        memory: Memory | None = None,
        requests: Requests | None = None,
        trackers: Trackers | None = None,
        owner: Owner | None = None,
    ) -> None:
        self.config, self.memory = config, memory
        self.chief = ranks.rank() == 0
        self.requests = requests or Requests()
        start = begin(config, memory.contents if memory else None, self._say, self._stop_if_asked)
        self.saved, self.stage, self.train_data = start.saved, start.stage, start.data
        self.sizes, self.schedule, self.state = start.sizes, start.schedule, start.state
        self._sums, self.last = start.sums, start.last
        self.step, self.health = self._make_step()
        # The first step compiles; a run shorter than its warm-up still gets a figure.
        warmup = min(self.schedule.warmup_steps, self._planned_steps() // 2)
        self.figures = Figures(self.sizes.images_per_step, Throughput(max(1, warmup)))
        self.journal, self.profiler = Journal(run_log, trackers or Trackers()), Profiler(config)
        self.step_log = StepLog(self.journal, self.figures, self.state, self._place)
        self.callbacks = UserCallbacks(callbacks, self.state.model)
        self.wishes = WishesOfRanks(
            self.requests,
            memory,
            save=lambda to_disk: self._save(self.figures.sums(), to_disk),
            stop=lambda number: self._stop(f"after step {number}"),
        )
        self.report = figures_of(self.saved, self.state.ema is not None)
        self.entered = False  # whether the launch's first stage was announced
        self._stop_if_asked("before its first step")
        evaluated = self.saved is not None and self.saved.state.get("score") is not None
        self.evaluations = Evaluations(
            config, self.state, start.data, self.journal, self.requests.asked_to_stop, evaluated
        )
        names, images = start.data.class_names, self.evaluations.images
        for line in find_earlier_best(self.state, config, images, names):
            self._say(line)
        steps = self.sizes.steps_per_epoch
        self.doubts = Doubts(config, self.state, start.data, self.schedule, steps)
        self._tell_what_begins()
        self.keeper = Keeper(
            config,
            self.state,
            memory=memory,
            requests=self.requests,
            owner=owner,
            sizes=self.sizes,
            last=self.last,
            warn=self.journal.line,
        )
        self.keeper.name_best()

    def _tell_what_begins(self) -> None:
        """Prints what the run is about to do, and warnings about its data."""
        doubts = [] if self.saved else self.doubts.of_data(self.evaluations.data)
        for line in (*overview(self.config, self.state, self.schedule, *self.sizes), *doubts):
            self._say(line)

    def report_to(self, run_log: RunLog) -> None:
        """Sets the log for `run`, if it is opened only once the run is known to be possible."""
        self.journal.log = run_log

    def _say(self, text: str) -> None:
        if self.chief:
            tell(text, sys.stdout)

    def _make_step(self) -> tuple[Step, Health]:
        data = self.train_data
        weights = class_weights(self.config, data)
        if line := changed_weights(self.state.class_weights, weights, data.class_names):
            self._say(line)
        self.state.class_weights = None if weights is None else weights.tolist()
        step = make_step(self.config, self.state, self.sizes.micro_steps, data.prepare, weights)
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

    def _planned_steps(self) -> int:
        steps = (self.last.epoch - self.state.epoch) * self.sizes.steps_per_epoch
        return int(min(steps, self.last.step - self.state.step))

    def run(self) -> dict[str, float]:
        """Trains to the last epoch of this launch and returns the figures of the run's summary.

        Raises:
            TrainingError, DataError, CheckpointError: the text says why; saved checkpoints stay
                complete.
        """
        state = self.state
        self.journal.begin(self.chief, self.config, self.sizes.steps_per_epoch)
        if self._is_over():
            self.journal.line(f"nothing left to train: {state.epoch} epochs are done")
        self.step.seed_randomness()
        self.callbacks.begin()
        try:
            self._stop_if_asked("before its first step")
            if self.evaluations.missing(self.saved, self.last.epoch):
                self.journal.line(
                    f"epoch {state.epoch} was saved but not evaluated: evaluating it now"
                )
                self._evaluate(kept=True)
            while not self._is_over():
                self._enter_stage()
                try:
                    asked = self._train_epoch()
                except NotFinite as failure:
                    self._go_back(failure)
                else:
                    self._end_epoch(asked)
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
        self.callbacks.end()
        rates, failed = self.figures.throughput.summary(), len(self.evaluations.failures)
        return self.report | of_a_run(rates["total_ips"], failed)

    def _is_over(self) -> bool:
        ended = self.state.epoch >= self.last.epoch or self.state.step >= self.last.step
        return ended or self.evaluations.exhausted

    def _train_epoch(self) -> Wishes:
        """Trains the rest of the current epoch, but not beyond the launch's last step.

        Returns:
            The ranks' wishes in the epoch's last step.
        """
        state, images, actions = self.state, self.sizes.images_per_step, self._after_step()
        self.figures.begin_epoch(self._sums)
        self._sums = Sums.none()
        self.callbacks.begin_epoch(state.epoch)
        batches = self.train_data.batches(state.epoch, state.offset)
        while state.step < self.last.step:
            self.profiler.before_step(state.step + 1)
            start = time.perf_counter()
            passes = self._wait_for_data(batches)
            if not passes:
                break
            if is_left_out(state, images):
                self.step.pass_over()
                state.offset += images
                continue
            done = self._train_step(passes, time.perf_counter() - start)
            for action in actions:
                action.after_step(done)
        watchdog.rest("ending an epoch")
        batches.close()
        if state.offset >= self.train_data.epoch_length:
            state.epoch, state.offset = state.epoch + 1, 0
        return self.wishes.take_left()

    def _train_step(self, passes: list[Batch], data_seconds: float) -> FinishedStep:
        """Updates the weights once, and counts the examples as done."""
        state, lr = self.state, self.schedule.rate(self._place())
        logged = self._is_logged(state.step + 1)
        start = time.perf_counter()
        result = self.step(passes, lr, self.wishes.own(), logged)
        seconds = time.perf_counter() - start
        self.requests.at_stake = True
        state.offset += self.sizes.images_per_step
        return FinishedStep(
            number=state.step,
            result=result,
            batches=passes,
            lr=lr,
            data_seconds=data_seconds,
            compute_seconds=seconds,
            logged=logged,
            ends_epoch=state.offset >= self.train_data.epoch_length,
        )

    def _after_step(self) -> tuple[AfterStep, ...]:
        """Returns what every step is followed by, in this order.

        A bad step must not be counted, and the user's callbacks may fail: wishes are granted first.
        """
        return self.health, self.figures, self.step_log, self.wishes, self.callbacks

    def _wait_for_data(self, batches: Iterator[Batch]) -> list[Batch]:
        """Returns the next step's batches, filled up with weight 0; none at the epoch's end."""
        watchdog.await_data(f"waiting for the data of step {self.state.step + 1}")
        passes = list(islice(batches, self.sizes.micro_steps))
        missing = self.sizes.micro_steps - len(passes) if passes else 0
        return passes + [without_weight(passes[-1]) for _ in range(missing)]

    def _end_epoch(self, asked: Wishes) -> None:
        """Saves, then does what may fail or take long: evaluation and the last step's wishes.

        Args:
            asked: from `_train_epoch`.

        Raises:
            TrainingError: more training images are unreadable than allowed.
            Preempted: a signal came.
        """
        config, state, due = self.config, self.state, self.evaluations.due(self.last.epoch)
        values = self.figures.of_epoch(self.schedule.rate(max(0, self._place() - 1)))
        self.report |= of_training(values)
        text, error = share_bad_examples(self.train_data, config.max_bad_examples)
        kept = self._is_over() or asked.stop or asked.save or error is not None
        if state.offset:  # --prof ended within the epoch
            self._sums = self.figures.sums()
        else:
            average_statistics(state)
            kept |= state.epoch % config.save_checkpoint_freq == 0
        sums = self._sums if state.offset else None
        try:
            self.journal.epoch(state, values)
            logs = {"loss": values["train.loss"], "accuracy": values["train.top1"]}
            self.callbacks.end_epoch(state.epoch - (not state.offset), logs)
        except BaseException:  # of the user's callbacks
            self._save(sums)
            raise
        self._save(sums, to_disk=kept)
        for line in filter(None, [text, *self.doubts.of_epoch(values["train.loss"])]):
            self.journal.line(line)
        if error is not None:
            raise error
        if kept:
            self.keeper.secure()
        if asked.stop:
            self._stop(f"after step {state.step}")
        if asked.regroup:
            known(self.memory).regroup()
        if due:
            self._evaluate(kept)

    def _go_back(self, failure: NotFinite) -> None:
        """Returns to the last good checkpoint; raises TrainingError if that is not wanted."""
        line, self._sums = roll_back(
            self.state,
            failure,
            times=0 if self.config.no_checkpoints else self.config.nan_rollback,
            images=self.sizes.images_per_step,
            model_dir=self.config.model_dir,
            saver=self.keeper.saver,
            data=self.train_data,
        )
        self.journal.line(line)
        self.step.seed_randomness()
        self.health = Health(self.step)
        self._save(self._sums, to_disk=False)

    def _place(self) -> int:
        """Returns the position in the schedule, in updates of the current batch size.

        It follows from epoch and offset, so it survives a change of batch or ranks.
        """
        done = math.ceil(self.state.offset / self.sizes.images_per_step)
        return self.state.epoch * self.sizes.steps_per_epoch + done

    def _stop(self, when: str) -> None:
        """Raises Preempted, once everything is saved."""
        self.keeper.finish(stopping=True)
        self._stop_if_asked(when)

    def _stop_if_asked(self, when: str) -> None:
        stop_if_asked(self.requests, when, not self.config.no_checkpoints)

    def _save(self, sums: Sums | None = None, to_disk: bool = True) -> None:
        """Begins to save the state as it is; see `Keeper.save`."""
        self.keeper.save(self.train_data, self.report, sums, to_disk)

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
