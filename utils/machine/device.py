"""Sets up TensorFlow's devices: threads, GPUs, number formats.

Call `setup` before the first tensor.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from convoy.utils.errors import UserError

logger = logging.getLogger("convoy.utils")

CPUS = Path("/proc/cpuinfo")
BACKEND = "KERAS_BACKEND"
_PROTOBUF, _JIT = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "TF_FUNCTION_JIT_COMPILE_DEFAULT"


class DeviceError(UserError, RuntimeError):
    """This machine, or its environment variables, do not meet a run's needs."""


def take_environment() -> list[str]:
    """Clears the environment of settings that would change or end a run.

    Other programs left them for Keras, TensorFlow and matplotlib. Call it before these are
    imported.

    Returns:
        Messages about ignored settings that somebody may have wanted.
    """
    environ, lines = os.environ, []
    if (named := environ.get(BACKEND, "tensorflow")) not in ("", "tensorflow"):
        lines.append(f"computing with TensorFlow: {BACKEND} ({named}) is ignored")
    environ[BACKEND] = "tensorflow"
    # Not a folder, so that Keras neither reads nor writes a keras.json.
    environ["KERAS_HOME"] = os.devnull
    # Keras imports matplotlib if it is installed, and fails if the backend does not exist.
    environ["MPLBACKEND"] = "agg"
    # matplotlib reports a cache folder that it cannot write, which is of no interest here.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    if environ.get(_PROTOBUF) == "cpp":  # releases since 2022 lack this implementation
        del environ[_PROTOBUF]
    if environ.pop(_JIT, "0") not in ("", "0", "false"):
        lines.append(
            f"{_JIT} is ignored, because XLA cannot compile the input; --use_xla compiles steps"
        )
    return lines


def check_interpreter() -> None:
    """Raises DeviceError if Python strips docstrings, which TensorFlow needs."""
    if sys.flags.optimize >= 2:
        raise DeviceError(
            "TensorFlow cannot be loaded without docstrings: start Python without -OO, and unset"
            " PYTHONOPTIMIZE, or set it to 1"
        )


def check_backend() -> None:
    """Checks Keras' backend in a process that is not ours, before or after Keras is imported.

    Raises:
        DeviceError: Keras uses, or will use, another backend than TensorFlow.
    """
    keras = sys.modules.get("keras")
    if keras is not None and hasattr(keras, "backend"):
        named, when = keras.backend.backend(), "and restart Python"
    else:
        named, when = os.environ.get(BACKEND) or "tensorflow", "before Keras is imported"
    if named != "tensorflow":
        raise DeviceError(
            f"Keras' backend is {named} here, and Convoy computes with TensorFlow: set"
            f" {BACKEND}=tensorflow in the environment {when}"
        )


def quiet() -> None:
    """Silences TensorFlow's C++ start-up messages. Works only before TensorFlow is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


# Lines that TensorFlow's C++ code prints before its logging is set up, whatever the level (W0000
# …), and those of TensorFlow Lite's quantiser.
_START_UP = re.compile(
    rb"^([WI]\d{4} \d\d:\d\d:|WARNING: All log messages before absl::Init|fully_quantize: \d)"
)


@contextmanager
def without_start_up_lines() -> Iterator[None]:
    """Drops lines such as `W0000 00:00:1717171717.171717 …` that C++ code prints in the block.

    Other lines on standard error appear after the block.
    """
    try:
        own = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    with open(own, "wb") as target, tempfile.TemporaryFile() as lines:
        os.dup2(lines.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(own, 2)
            lines.seek(0)
            target.writelines(line for line in lines if not _START_UP.match(line))


def prefer_onednn() -> None:
    """Makes TensorFlow use oneDNN on every x86 processor.

    By default it does so only with AVX-512, but on a processor with AVX2 a training step takes
    about 0.6 of the time. Works only before TensorFlow is imported, and not if
    `TF_ENABLE_ONEDNN_OPTS` is set.
    """
    if platform.machine() == "x86_64":
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def warn_of_slow_bfloat16(policy: str) -> None:
    """Warns about bfloat16 training on a CPU without bfloat16 instructions."""
    if policy != "mixed_bfloat16" or has_gpu() or platform.machine() != "x86_64":
        return
    if CPUS.exists() and "avx512bw" not in CPUS.read_text():
        logger.warning(
            "this processor has no instructions for bfloat16: training is slower and less exact"
            " than in float32, the default; leave out --use_amp and --dtype"
        )


def import_tensorflow() -> None:
    """Imports TensorFlow and Keras without scikit-learn, for our own processes.

    If scikit-learn is installed, Keras loads it for wrappers that we do not use, which takes 1.6 of
    the 5.4 s.
    """
    if "keras" in sys.modules or "sklearn" in sys.modules:
        return
    # None makes `import sklearn` raise ImportError.
    sys.modules["sklearn"] = None  # type: ignore[assignment]  # typeshed does not know it
    try:
        import keras  # noqa: F401
        import tensorflow  # noqa: F401
    finally:
        del sys.modules["sklearn"]


def setup(
    *, local_rank: int, intraop_threads: int | None, interop_threads: int | None, tf32: bool
) -> None:
    """Pins this process to its GPU, if there are any, and sets threads and TensorFloat-32.

    Raises:
        DeviceError: there are GPUs, but fewer than processes on this host.
    """
    import tensorflow as tf

    if intraop_threads:
        tf.config.threading.set_intra_op_parallelism_threads(intraop_threads)
    if interop_threads:
        tf.config.threading.set_inter_op_parallelism_threads(interop_threads)
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        if local_rank >= len(gpus):
            raise DeviceError(
                f"process {local_rank} of this host (from 0) has no GPU: {len(gpus)} are visible;"
                " start as many processes a host as it has GPUs, or see CUDA_VISIBLE_DEVICES"
            )
        tf.config.set_visible_devices(gpus[local_rank], "GPU")
        tf.config.experimental.set_memory_growth(gpus[local_rank], True)
    tf.config.experimental.enable_tensor_float_32_execution(tf32)


def has_gpu() -> bool:
    """Returns whether this process computes on a GPU."""
    import tensorflow as tf

    return bool(tf.config.get_visible_devices("GPU"))


def precision(use_amp: bool, dtype: str | None, gpu: bool) -> str:
    """Returns the Keras dtype policy: `--dtype`, or what `--use_amp` implies on this device."""
    short = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
    if dtype:
        name = short.get(dtype, dtype)
        return name if name == "float32" else f"mixed_{name}"
    if use_amp:
        return "mixed_float16" if gpu else "mixed_bfloat16"
    return "float32"
