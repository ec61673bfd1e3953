"""Compiles functions with XLA, and caches compiled code in a folder for the next run."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from convoy.utils.native import tensorflow_version

CPUS, GPUS = Path("/proc/cpuinfo"), Path("/proc/driver/nvidia")
_FLAGS = "TF_XLA_FLAGS"
_KEEPS = "--tf_xla_persistent_cache_directory="
_STRIDE = 1 << 18  # more than one function's parts; counting this far takes 0.1 s


def function(python: Callable, compiled: bool, **options: Any) -> Callable:
    """Makes a `tf.function`, compiled with XLA if `compiled`.

    TensorFlow's function names end in a number that grows with everything made before, and the
    cache of `keep` is looked up by these names. Tracing therefore starts at a round number, so that
    a run that did other things first (for example, restored a checkpoint) also finds the cached
    code.
    """
    import tensorflow as tf

    options = {"autograph": False} | options  # AutoGraph takes seconds; see docs/decisions
    if not compiled:
        return tf.function(python, **options)
    count_on = tf.autograph.experimental.do_not_convert(_count_on)

    @functools.wraps(python)
    def traced(*args: Any, **named: Any) -> Any:
        count_on()
        return python(*args, **named)

    return tf.function(traced, jit_compile=True, **options)


def _count_on() -> None:
    if _KEEPS not in os.environ.get(_FLAGS, ""):
        return
    from tensorflow.python.framework import ops

    while ops.uid() % _STRIDE:
        pass


def keep(folder: str, *settings: Any) -> Path:
    """Makes XLA cache compiled code in `folder`, and reuse it.

    Works only before TensorFlow computes.

    Code compiled for one processor or GPU can crash a process on another, and XLA's own keys
    include neither that nor the version or the options. So each combination gets its own folder.

    Args:
        folder: where the combinations' folders lie.
        *settings: other settings that the compiled code depends on.

    Raises:
        PermissionError: everybody may write there. The folder holds machine code, which this
            process runs.
        OSError: the folder cannot be made or written.
    """
    place = Path(folder).absolute() / _kind(settings)
    place.mkdir(parents=True, exist_ok=True)
    for path in (place.parent, place):
        if path.stat().st_mode & stat.S_IWOTH:
            raise PermissionError(
                f"every user may write to {path}, whose files are executed: choose another folder,"
                f" or remove that permission (chmod o-w {path})"
            )
    with tempfile.TemporaryFile(dir=place):
        pass
    for path in place.glob("*.pb"):  # XLA renames only complete files, but the power may fail
        with suppress(FileNotFoundError):  # another process was faster
            if not path.stat().st_size:
                path.unlink()
    quoted = str(place).replace("\\", r"\\").replace('"', r"\"")
    _ask(f'{_KEEPS}"{quoted}"', "--tf_xla_deterministic_cluster_names")
    return place


def _kind(settings: tuple[Any, ...]) -> str:
    """Names the version of TensorFlow, with a hash of all else that compiled code depends on."""
    facts = [platform.machine(), os.environ.get("XLA_FLAGS"), os.environ.get(_FLAGS), settings]
    with suppress(OSError):
        lines = CPUS.read_text().splitlines()
        facts += sorted({line for line in lines if line.startswith(("model name", "flags"))})
    with suppress(OSError):
        facts.append((GPUS / "version").read_text())
    for file in sorted(GPUS.glob("gpus/*/information")):
        with suppress(OSError):
            facts += [line for line in file.read_text().splitlines() if line.startswith("Model")]
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()
    return f"tensorflow-{tensorflow_version()}-{digest[:12]}"


def allow_clusters() -> None:
    """Makes `cluster` work on CPUs too. Works only before TensorFlow computes."""
    _ask("--tf_xla_cpu_global_jit")


def cluster() -> None:
    """Makes XLA compile the parts between operations that it cannot compile, such as Horovod's.

    This is for synchronised batch norm, whose exchanges are in the middle of the step. Call it
    after `device.setup`: a setting made once TensorFlow's devices exist affects the functions
    called, but not tf.data, whose random crops XLA would draw differently.
    """
    import tensorflow as tf

    tf.config.list_logical_devices()  # creates the devices, if nothing else has
    tf.config.optimizer.set_jit("autoclustering")


def _ask(*flags: str) -> None:
    os.environ[_FLAGS] = " ".join([os.environ.get(_FLAGS, ""), *flags]).strip()
