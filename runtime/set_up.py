"""Prepares this process for a mode: TensorFlow, the other processes, devices and Keras."""

from __future__ import annotations

import os

from convoy.runtime.exits import say
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.input_backend import check_data_format
from convoy.runtime.settings.modes import RUN_MODES
from convoy.utils.distributed import ranks
from convoy.utils.distributed.horovod_build import build_info
from convoy.utils.distributed.launched import StoppedEarly, launched_processes
from convoy.utils.errors import ConfigError
from convoy.utils.machine import device, xla
from convoy.utils.signals import Requests, stop_if_asked, stopped_at_once
from convoy.utils.watchdog import watchdog


def prepare_backend(config: Config, owns_process: bool) -> None:
    """Sets environment variables that must exist before TensorFlow and Keras are imported.

    Args:
        config: the flags.
        owns_process: whether this process is ours alone, and not a program that uses the library.

    Raises:
        DeviceError: TensorFlow cannot run here, or Keras has another backend.
    """
    device.check_interpreter()
    if not config.verbose:
        device.quiet()
    device.prefer_onednn()
    device.keep_gpu_kernels()
    if not owns_process:
        device.check_backend()
        return
    for line in device.take_environment():
        if os.environ.get("HOROVOD_RANK", "0") == "0":
            say(line)


def set_up(config: Config, requests: Requests, owns_process: bool) -> None:
    """Joins the other processes, and configures devices and Keras; after `prepare_backend`.

    Args:
        config: the flags.
        requests: records signals that ask for a stop.
        owns_process: see `prepare_backend`.

    Raises:
        Stopped, Preempted: a signal came.
        UserError: this machine or the launch cannot work; the text says why.
    """
    # Exports are compared to 1e-3 by runtimes that compute in float32.
    tf32 = config.tf32 and config.mode != "export"
    clusters = config.use_xla and config.batch_norm == "syncbn"
    # Rows may decide about XLA, each for its own model.
    clusters &= config.mode != "inference_benchmark" and config.benchmark_xla is None
    kept = 0 if config.xla_cache is None else _keep_compiled(config.xla_cache, tf32)
    if clusters:
        xla.allow_clusters()
    _join(config, requests, owns_process)
    if kept and ranks.rank() == 0:
        say(
            f"--xla_cache has {kept} compiled functions for this kind of machine; a line of"
            " libprotobuf about text-format tells that one was taken"
        )
    with watchdog.hushed("setting up its devices"):
        device.setup(
            local_rank=ranks.local_rank(),
            intraop_threads=config.intraop_threads,
            interop_threads=config.interop_threads,
            tf32=tf32,
            use_xla=config.use_xla,
        )
    if ranks.rank() == 0:
        _warn_of_devices()
    ranks.watch(config.watchdog_seconds, say)
    # In elastic jobs, newcomers meet processes that were set up long ago.
    if not ranks.elastic():
        stop_if_asked(requests, "before its first step", not config.no_checkpoints)
    if clusters:
        xla.cluster()
    check_data_format(config)
    _set_up_keras(config)


def _keep_compiled(folder: str, tf32: bool) -> int:
    """Makes XLA cache compiled code. Returns how much is cached."""
    try:
        place = xla.keep(folder, tf32)
    except OSError as error:
        raise ConfigError(f"--xla_cache {folder}: {error.strerror or error}") from error
    return len(list(place.glob("*.pb")))


def _join(config: Config, requests: Requests, owns_process: bool) -> None:
    """Loads TensorFlow, and joins the other processes."""
    with requests.at_once(launched_processes() == 1):  # nobody waits for this process
        if owns_process:
            with watchdog.hushed("loading TensorFlow"):
                device.import_tensorflow()
        watchdog.limit_data(config.data_wait_seconds)
        try:
            ranks.init(config.watchdog_seconds, lambda: requests.signal, say)
        except StoppedEarly as early:
            name = str(early)
            raise stopped_at_once(requests, "before its first step", name) from None


def _warn_of_devices() -> None:
    if reason := device.why_no_gpu():
        say(f"WARNING: {reason}")
    if device.has_gpu() and ranks.size() > 1 and not build_info()["nccl"]:
        say(
            "WARNING: Horovod was built without NCCL: the GPUs exchange gradients through the"
            " host's memory, which is slow. Call `make setup` on a machine with a GPU driver"
        )


def _set_up_keras(config: Config) -> None:
    """Sets Keras' precision and random seed, and its log."""
    import keras

    from convoy.runtime.builders.precision import precision
    from convoy.utils.logging import setup_logging

    setup_logging(ranks.rank())
    if config.mode == "export":
        keras.config.set_dtype_policy("float32")
    else:
        policy, reason = precision(config)
        if ranks.rank() == 0 and config.mode in RUN_MODES:
            if reason:
                name = policy.removeprefix("mixed_")
                say(f"--use_amp: computing in {name}, because {reason}")
            else:
                device.warn_of_slow_bfloat16(policy)
        keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(config.seed)
