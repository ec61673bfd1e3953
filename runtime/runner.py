"""`Runner(config).run()` does what `--mode` says; `main()` also turns errors into messages and
exit codes.
"""

from __future__ import annotations

import math
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from convoy.runtime import checkpoint, trackers
from convoy.runtime.config import Config, ConfigError
from convoy.runtime.failures import TRAINING, explain, interrupted
from convoy.runtime.requests import Preempted, Requests
from convoy.runtime.validate import TRAINING_MODES, preempt_signals
from convoy.utils import device, distributed, gathering, watchdog, xla
from convoy.utils.distributed import launch_variable, launched_processes
from convoy.utils.errors import UserError
from convoy.utils.files import path_of, write_atomically
from convoy.utils.progress import lasting_output
from convoy.utils.resources import allow_open_files
from convoy.utils.terminate import tell_of_termination

EXIT_ERROR, EXIT_SOME_FAILED, EXIT_PREEMPTED, EXIT_INTERRUPTED = 1, 3, 75, 130


class Runner:
    """Runs one mode.

    Args:
        config: settled and checked settings (`runtime.configure`; of a command line,
            `runtime.cli.parse`).

    Example:
        ```
        from convoy.runtime import Runner, configure
        figures = Runner(configure(data_dir="digits", model_dir="out", max_epochs=3)).run()
        ```
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._command = False  # whether this process is ours alone

    def main(self) -> int:
        """Runs, and returns the process's exit code: 0, or what went wrong in one message on
        stderr.
        """
        self._command = True
        allow_open_files()
        tell_of_termination(lambda error: f"convoy: {explain(error, self.config)}", EXIT_ERROR)
        with lasting_output(MODES[self.config.mode].prints):
            code = self._main()
        if trackers.unfinished():
            watchdog.stop()
            distributed.shutdown()
            _exit(code)  # else it is waited for, without end
        return code

    def _main(self) -> int:
        try:
            result = self.run()
            if MODES[self.config.mode].prints and sys.stdout:
                sys.stdout.flush()  # a full disk would show at the program's end only
        except KeyboardInterrupt:
            return _fail(interrupted(self.config), EXIT_INTERRUPTED)
        except Preempted as stopped:
            if distributed.rank() == 0:
                _say(str(stopped))
            return EXIT_PREEMPTED  # every rank stops alike, so they part in good order
        except gathering.Removed as removed:
            _say(str(removed))
            return _leave(EXIT_PREEMPTED)
        except UserError as error:
            distributed.end_elastic_job(str(error))
            return _fail(str(error))
        except Exception as error:  # noqa: BLE001 — told below, and every rank ends
            # A rank that goes breaks the exchange of all others: the watchdog says which it was.
            if "orovod" in str(error) and watchdog.has_spoken():
                return _leave(EXIT_ERROR)
            if text := explain(error, self.config):
                return _fail(text)
            traceback.print_exc()  # a fault of ours: show where
            return _fail("the traceback above is a fault of the program")
        return EXIT_SOME_FAILED if result.get("failed") else 0

    def run(self) -> dict[str, Any]:
        """Runs the mode and returns its figures.

        Raises:
            ConfigError, DataError, CheckpointError, TrainingError, DistributedError: in plain
            words.
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
        if not (mode.sets_up and not config.runs):
            return mode.run(self)
        distributed.check_launch()
        self._prepare_backend()
        signals = preempt_signals(config) if config.mode in TRAINING else ()
        with Requests(signals) as self._requests:
            self._set_up()
            return mode.run(self)

    def _prepare_backend(self) -> None:
        """What has to be in the environment before TensorFlow and Keras are imported."""
        device.check_interpreter()
        if not self.config.verbose:
            device.quiet()
        device.prefer_onednn()
        if not self._command:
            device.check_backend()
            return
        device.take_plots()
        if (other := device.take_backend()) and os.environ.get("HOROVOD_RANK", "0") == "0":
            _say(f"computing with TensorFlow, whatever {device.BACKEND} ({other}) says")

    def _set_up(self) -> None:
        """Joins the other processes, and makes devices and Keras what the config says."""
        config, mode = self.config, self.config.mode
        # Exports are judged to 1e-3 by runtimes that compute in float32.
        tf32 = config.tf32 and mode != "export"
        clusters = config.use_xla and config.batch_norm == "syncbn"
        # Where rows decide about XLA, each for its own model.
        clusters &= mode != "inference_benchmark" and config.benchmark_xla is None
        kept = 0 if config.xla_cache is None else _keep_compiled(config.xla_cache, tf32)
        if clusters:
            xla.allow_clusters()
        if self._command:
            device.import_tensorflow()
        distributed.init()
        if kept and distributed.rank() == 0:
            _say(
                f"--xla_cache has {kept} compiled functions for this kind of machine; a line of"
                " libprotobuf about text-format tells that one was taken"
            )
        device.setup(
            local_rank=distributed.local_rank(),
            intraop_threads=config.intraop_threads,
            interop_threads=config.interop_threads,
            tf32=tf32,
        )
        # After the devices are set up: its exchange makes the first tensor.
        trouble = distributed.watch(config.watchdog_seconds)
        if trouble and distributed.rank() == 0:
            _say(f"WARNING: no watchdog: {trouble}; a frozen process will not end the job")
        if clusters:
            xla.cluster()
        _check_data_format(config)
        import keras

        from convoy.utils.logging import setup_logging

        setup_logging(distributed.rank())
        precision = device.precision(config.use_amp, config.dtype, device.has_gpu())
        if mode in TRAINING and distributed.rank() == 0:
            device.warn_of_slow_bfloat16(precision)
        keras.config.set_dtype_policy("float32" if mode == "export" else precision)
        keras.utils.set_random_seed(config.seed)

    def _train(self) -> dict[str, Any]:
        if not distributed.elastic():
            return self._train_once()
        from convoy.runtime import elastic

        return elastic.train(self.config, self._train_once)

    def _train_once(self, memory: Any = None) -> dict[str, Any]:
        """Trains to the end; in an elastic job to the next change of its processes."""
        from convoy.runtime.environment import record
        from convoy.runtime.report import report_training
        from convoy.runtime.train import Trainer

        begun = self.config.resume_checkpoint or bool(memory and memory.contents)
        with trackers.open_trackers(self.config, begun) as tracking:
            with self._log(append=begun) as run_log:
                # Flags that do not fit the checkpoint end here, before the settings are written.
                trainer = Trainer(
                    self.config, run_log, memory=memory, requests=self._requests, trackers=tracking
                )
                record(self.config.model_dir)
                if distributed.rank() == 0:
                    settings = path_of(self.config.model_dir) / "config.yaml"
                    write_atomically(settings, self.config.to_yaml())
                figures = trainer.run()
                _summarise(run_log, figures)
            # After the log's end: at a URL all of it is there only then.
            distributed.on_rank0(lambda: report_training(self.config, tracking))
        return figures

    def _benchmark(self) -> dict[str, Any]:
        from convoy.runtime.benchmark import run

        with self._log(append=True) as run_log:
            return _summarise(run_log, run(self.config, run_log))

    def _eval(self) -> dict[str, Any]:
        if self.config.report:
            from convoy.runtime.eval_report import report as evaluate
        else:
            from convoy.runtime.evaluate import evaluate_checkpoint as evaluate

        with self._log(append=True) as run_log:
            return _summarise(run_log, evaluate(self.config))

    def _predict(self) -> dict[str, Any]:
        from convoy.runtime.predict import predict

        return predict(self.config)

    def _export(self) -> dict[str, Any]:
        from convoy.runtime.export import export

        return export(self.config)

    def _report(self) -> dict[str, Any]:
        if self.config.runs:  # needs no TensorFlow
            from convoy.runtime.comparison import compare_runs

            return compare_runs(self.config)
        from convoy.runtime.report import write_report

        return write_report(self.config)

    def _convert(self) -> dict[str, Any]:
        from convoy.model.weights import convert

        config, file = self.config, self.config.pretrained_from_file
        report = convert(
            file or checkpoint.resolve(config.model_dir, config.checkpoint),
            config.output,
            arch=config.arch if file else None,
            names=config.weight_names,
            ema={"auto": None, "raw": False, "ema": True}[config.weights],
            padding=config.padding,
        )
        print("\n".join(report.lines()))
        return {"max_logit_difference": report.max_logit_difference}

    def _summary(self) -> dict[str, Any]:
        from convoy.runtime.listing import summarise_model

        return summarise_model(self.config)

    def _list(self) -> dict[str, Any]:
        from convoy.runtime.listing import list_architectures

        return list_architectures(self.config.pattern)

    def _env(self) -> dict[str, Any]:
        from convoy.runtime.environment import show

        self._prepare_backend()
        return show()

    def _log(self, append: bool = False) -> Any:
        """The run's log on rank 0, inert elsewhere; proves first that model_dir can be written."""
        from contextlib import closing

        from convoy.utils.logging import make_json_logger

        distributed.on_rank0(lambda: checkpoint.check_writable(self.config.model_dir))
        path = (
            path_of(self.config.model_dir) / self.config.log_filename
            if distributed.rank() == 0
            else None
        )
        run_log = make_json_logger(path, append=append)
        run_log.parameters(asdict(self.config))
        return closing(run_log)


@dataclass(frozen=True)
class Mode:
    """One of `--mode`'s.

    Attributes:
        run: does it, and returns its figures.
        alone: it runs in one process.
        sets_up: processes, devices and Keras are made ready first.
        prints: its result is what it prints, not files.
    """

    run: Callable[[Runner], dict[str, Any]]
    alone: bool = True
    sets_up: bool = True
    prints: bool = False


MODES = {
    "train_and_eval": Mode(Runner._train, alone=False),
    "train": Mode(Runner._train, alone=False),
    "training_benchmark": Mode(Runner._benchmark, alone=False),
    "inference_benchmark": Mode(Runner._benchmark),
    "eval": Mode(Runner._eval, alone=False),
    "predict": Mode(Runner._predict),
    "export": Mode(Runner._export),
    "convert": Mode(Runner._convert),
    "report": Mode(Runner._report),
    "summary": Mode(Runner._summary, prints=True),
    "list": Mode(Runner._list, sets_up=False, prints=True),
    "env": Mode(Runner._env, alone=False, sets_up=False, prints=True),
}


def _keep_compiled(folder: str, tf32: bool) -> int:
    """Has XLA keep what it compiles. Returns how much is there."""
    try:
        place = xla.keep(folder, tf32)
    except OSError as error:
        raise ConfigError(f"--xla_cache {folder}: {error.strerror or error}") from error
    return len(list(place.glob("*.pb")))


def _check_data_format(config: Config) -> None:
    """Refuses what TensorFlow's CPU kernels cannot do: convolve in NCHW."""
    if config.data_format == "channels_last" or device.has_gpu():
        return
    if config.mode in ("summary", "convert"):
        return
    if config.batch_norm == "syncbn" and distributed.size() > 1:
        raise ConfigError(
            "--data_format channels_first with --batch_norm syncbn needs GPUs: on CPUs XLA would"
            " have to compile the whole step, which synchronised batch norm divides"
        )
    rows = config.benchmark_xla  # of a benchmark, where they decide
    if not (config.use_xla if rows is None else "off" not in rows):
        raise ConfigError(
            "--data_format channels_first needs a GPU, or --use_xla: TensorFlow's convolutions for"
            " CPUs take channels_last only (its oneDNN ones are not in every build)"
        )


def _summarise(run_log: Any, figures: dict[str, Any]) -> dict[str, Any]:
    """Logs the run's summary line, step (), and prints it on rank 0."""
    from convoy.runtime import evaluate, journal

    units = evaluate.UNITS | journal.UNITS
    for name in figures:
        if name in evaluate.UNITS:
            run_log.metadata(name, *units[name])
    run_log.log((), figures)
    if distributed.rank() == 0:
        for name, value in figures.items():
            unit, form = units.get(
                name, units.get(name.replace("eval_ema_", "eval_"), (None, ":.4f"))
            )
            text = f"{{{form}}}".format(value) if isinstance(value, float) else str(value)
            if isinstance(value, float) and math.isnan(value):
                text, unit = "unknown: too few steps to measure", ""
            print(f"{name:<42}{text} {unit or ''}".rstrip(), flush=True)
    return figures


def _say(text: str) -> None:
    prefix = f"convoy (rank {distributed.rank()}): " if distributed.size() > 1 else "convoy: "
    print(prefix + text, file=sys.stderr, flush=True)


def _fail(text: str, code: int = EXIT_ERROR) -> int:
    """Tells the user and the other ranks."""
    _say(text)
    watchdog.fail(text)
    return _leave(code)


def _leave(code: int) -> int:
    """The exit code; with several ranks, or in an elastic job, at once.

    A rank that failed must not wait for the others in Horovod's shutdown: they wait for it in an
    exchange. Its end makes the launcher, or their broken connection, end them.
    """
    if distributed.size() > 1 or distributed.elastic():
        _exit(code)
    return code


def _exit(code: int) -> None:
    """Ends the process without what was registered to run at its exit."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


__all__ = ["TRAINING_MODES", "Runner"]
