"""Runs the mode of `--mode`: `Runner(config).run()`.

`main()` also turns errors into messages and exit codes.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from convoy.runtime.checks.every_mode import preempt_signals
from convoy.runtime.command_line.cli import find_batch, find_recomputation
from convoy.runtime.exits import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    EXIT_REFUSED,
    EXIT_SOME_FAILED,
    exit_now,
    fail,
    is_first,
    leave,
    say,
    tell_of_failed_evaluations,
)
from convoy.runtime.failures import explain, interrupted, saved_command
from convoy.runtime.predict.choice import Choice, choose
from convoy.runtime.run_folder import which_checkpoint
from convoy.runtime.run_log import open_log, summarise
from convoy.runtime.set_up import prepare_backend, set_up
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flags import AUTO
from convoy.runtime.settings.modes import (
    AVERAGE,
    ENGINE_MODES,
    MODES,
    RUN_MODES,
    TRAINING_MODES,
)
from convoy.runtime.trackers import workers
from convoy.utils.distributed import gathering, ranks
from convoy.utils.distributed.horovod_errors import is_horovods
from convoy.utils.distributed.launched import (
    check_launch,
    launch_variable,
    launched_processes,
)
from convoy.utils.errors import ConfigError, UserError
from convoy.utils.machine import device
from convoy.utils.machine.last_words import tell_of_termination
from convoy.utils.machine.resources import allow_open_files
from convoy.utils.optional import known
from convoy.utils.progress import lasting_output
from convoy.utils.signals import (
    EXIT_PREEMPTED,
    Preempted,
    Requests,
    Stopped,
    stopped_at_once,
)
from convoy.utils.watchdog import watchdog


class Runner:
    """Runs one mode.

    Args:
        config: complete and checked settings (from `runtime.configure`; for a command line, from
            `runtime.command_line.cli.parse`).
        requests: records signals that ask for a stop; its `with` block, in the caller, must last as
            long as the runner is used. None: made in `run`.
        args: the command line, or None.

    Example:
        ```
        from convoy.runtime import Runner, configure
        figures = Runner(configure(data_dir="digits", model_dir="out", max_epochs=3)).run()
        ```
    """

    def __init__(
        self, config: Config, requests: Requests | None = None, args: Sequence[str] | None = None
    ) -> None:
        self.config, self._args = config, args
        self._requests = requests or Requests()
        self._command = False  # whether we own this process
        self._choice = Choice(None)  # what computes a model's answers

    def main(self) -> int:
        """Runs, and returns the exit code: 0, or another after one error message on stderr."""
        self._command = True
        allow_open_files()
        tell_of_termination(self._last_words, EXIT_ERROR)
        with lasting_output(self._prints()):
            code = self._main()
        if workers.unfinished():
            ranks.shutdown()
            watchdog.stop()
            exit_now(code)  # otherwise interpreter exit would block on the tracker
        return code

    def _prints(self) -> bool:
        """Returns whether the result of the mode is its output, not files."""
        return MODES[self.config.mode].prints or bool(self.config.image)

    def _last_words(self, error: BaseException) -> str:
        if isinstance(error, ConnectionError) and watchdog.has_spoken():
            return ""  # the watchdog's line has named the rank
        return f"convoy: {explain(error, self.config)}"

    def _main(self) -> int:
        try:
            result = self.run()
            if self._prints() and sys.stdout:
                sys.stdout.flush()  # otherwise a full disk would show only at the program's end
        except KeyboardInterrupt:
            return fail(interrupted(self.config), EXIT_INTERRUPTED)
        except Stopped:
            say(str(stopped_at_once(self._requests, "before its first step")))
            return leave(EXIT_PREEMPTED)
        except Preempted as stopped:
            if is_first():
                go_on = [] if stopped.queued else saved_command(self.config)
                say("\n".join([str(stopped), *go_on]))
            return EXIT_PREEMPTED  # all ranks stop at the same step, so Horovod can shut down
        except gathering.Removed as removed:
            say(str(removed))
            return leave(EXIT_PREEMPTED)
        except Exception as error:  # noqa: BLE001 — reported there, and every rank ends
            return self._end_by(error)
        if failed := result.get("evaluations_failed"):
            tell_of_failed_evaluations(failed)
            return EXIT_SOME_FAILED
        if not result.get("failed"):
            return 0
        return EXIT_SOME_FAILED if result["images"] else EXIT_ERROR  # in a prediction

    def _end_by(self, error: Exception) -> int:
        """Reports what ended the mode; returns the exit code, if the process should continue."""
        # The same code as for errors in the command line, however late the conflict shows.
        code = EXIT_REFUSED if isinstance(error, ConfigError) else EXIT_ERROR
        if ranks.is_told(error):
            watchdog.stop()
            return leave(code)
        if isinstance(error, UserError):
            ranks.end_elastic_job(str(error))
            return fail(str(error), code)
        # A rank that leaves breaks the exchange of all others: the watchdog says which one it was.
        if is_horovods(error) and watchdog.has_spoken():
            return leave(EXIT_ERROR)
        if text := explain(error, self.config):
            return fail(text)
        traceback.print_exception(error)  # a bug of ours: show where
        return fail("this is a bug in Convoy: please report it with the traceback above")

    def run(self) -> dict[str, Any]:
        """Runs the mode and returns its figures.

        Raises:
            UserError: something that the user can mend; the text says how. It is a ConfigError,
                DataError, CheckpointError, TrainingError or another kind of it.
        """
        config, mode = self.config, MODES[self.config.mode]
        if config.nproc:
            raise ConfigError("--nproc is for main.py; start a program of yours with horovodrun")
        if mode.alone and (started := launched_processes()) > 1:
            raise ConfigError(
                f"--mode {config.mode} runs in one process, and {launch_variable()} in the"
                f" environment says that {started} were started: start it without horovodrun,"
                " mpirun or srun, or unset the variable where it is another job's"
            )
        if config.mode in ENGINE_MODES:
            self._choice = choose(config)
        if self._choice.file or not mode.sets_up or config.runs:
            return RUNS[config.mode](self)
        check_launch()
        prepare_backend(config, self._command)
        requests = self._requests
        requests.requeue = config.requeue
        with requests:
            requests.hear(preempt_signals(config) if config.mode in RUN_MODES else ())
            set_up(config, requests, self._command)
            if config.train_batch_size == AUTO and config.mode in TRAINING_MODES:
                self.config = find_batch(config, self._args)
            if self.config.recompute == AUTO and config.mode in TRAINING_MODES:
                self.config = find_recomputation(self.config)
            return RUNS[config.mode](self)

    def _train(self) -> dict[str, Any]:
        from convoy.runtime.training import train

        return train(self.config, self._requests)

    def _lr_find(self) -> dict[str, Any]:
        from convoy.runtime.train.lr_find import find_rate

        return find_rate(self.config, self._args)

    def _benchmark(self) -> dict[str, Any]:
        from convoy.runtime.benchmark.benchmark import run
        from convoy.runtime.run_folder.ownership import Owner

        with Owner(self.config.model_dir) as owner:
            # Their lines would look like the run's own in its log.
            if self.config.mode in TRAINING_MODES:
                ranks.on_rank0(owner.claim)
            with open_log(self.config, append=True) as run_log:
                return summarise(run_log, run(self.config, run_log))

    def _eval(self) -> dict[str, Any]:
        from convoy.runtime.evaluate.evaluate import evaluate_checkpoint

        with open_log(self.config, append=True) as run_log:
            if self._choice.file:
                from convoy.runtime.evaluate.by_export import evaluate_export

                return summarise(run_log, evaluate_export(self.config, self._choice))
            if self.config.report:
                from convoy.runtime.evaluate.detailed_evaluation import report

                return report(self.config, lambda figures: summarise(run_log, figures))
            return summarise(run_log, evaluate_checkpoint(self.config))

    def _predict(self) -> dict[str, Any]:
        from convoy.runtime.export.for_labelling import exported_if_it_pays
        from convoy.runtime.predict.predict import predict

        return predict(self.config, self._choice, exported_if_it_pays)

    def _export(self) -> dict[str, Any]:
        from convoy.runtime.export.export import export

        return export(self.config)

    def _report(self) -> dict[str, Any]:
        if self.config.runs:  # needs no TensorFlow
            from convoy.runtime.report.comparison import compare_runs

            return compare_runs(self.config)
        from convoy.runtime.report.training_page import write_report

        return write_report(self.config)

    def _convert(self) -> dict[str, Any]:
        from convoy.model.weights import convert

        config, file = self.config, self.config.pretrained_from_file
        report = convert(
            file or str(which_checkpoint.resolve(config.model_dir, config.checkpoint)),
            known(config.output),
            arch=config.arch,
            names=config.weight_names,
            ema=AVERAGE[config.weights],
            padding=config.padding,
            partial=config.pretrained_partial,
            image_size=config.image_size,
        )
        print("\n".join(report.lines()))
        return {"max_logit_difference": report.max_logit_difference}

    def _summary(self) -> dict[str, Any]:
        if self.config.memory:
            from convoy.runtime.describe.memory_table import show_memory

            return show_memory(self.config)
        from convoy.runtime.describe.listing import summarise_model

        return summarise_model(self.config)

    def _list(self) -> dict[str, Any]:
        from convoy.runtime.describe.listing import list_architectures

        return list_architectures(self.config.pattern)

    def _env(self) -> dict[str, Any]:
        from convoy.runtime.describe.environment import show

        prepare_backend(self.config, self._command)
        if self._command:
            device.import_tensorflow()
        return show()


RUNS: dict[str, Callable[[Runner], dict[str, Any]]] = {
    "train_and_eval": Runner._train,
    "train": Runner._train,
    "lr_find": Runner._lr_find,
    "eval": Runner._eval,
    "predict": Runner._predict,
    "export": Runner._export,
    "convert": Runner._convert,
    "report": Runner._report,
    "training_benchmark": Runner._benchmark,
    "inference_benchmark": Runner._benchmark,
    "list": Runner._list,
    "summary": Runner._summary,
    "env": Runner._env,
}
"""What runs each mode and returns its figures."""
