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
from contextlib import contextmanager, nullcontext
from pathlib import Path

from convoy.utils.errors import UserError
from convoy.utils.extras import broken_installation, mend
from convoy.utils.installed import wrong_version
from convoy.utils.machine.garbage import without_garbage_collection
from convoy.utils.places import cache_folder

logger = logging.getLogger("convoy.utils")

CPUS = Path("/proc/cpuinfo")
DRIVER = Path("/proc/driver/nvidia/version")
OLDEST_DRIVER = 525
"""The first driver for CUDA 12, by NVIDIA's table of minor version compatibility."""
BACKEND = "KERAS_BACKEND"
_LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
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


def keep_gpu_kernels() -> None:
    """Gives the driver a folder and room for the GPU code that it compiles at first use.

    TensorFlow's packages have no machine code for most kernels on Hopper, and none on Blackwell.
    Works only before CUDA starts; variables that the user has set stay.
    """
    if DRIVER.exists():
        os.environ.setdefault("CUDA_CACHE_PATH", str(cache_folder("cuda")))
        os.environ.setdefault("CUDA_CACHE_MAXSIZE", str(4 << 30))


def _cpu_flags() -> set[str]:
    """Returns the features of an x86 processor, as Linux names them; empty elsewhere."""
    if platform.machine() != "x86_64" or not CPUS.exists():
        return set()
    with CPUS.open() as file:  # the first processor's: a large machine has hundreds
        return set(next((line for line in file if line.startswith("flags")), "").split())


def multiplies_bfloat16() -> bool | None:
    """Returns whether the processor has instructions for products of bfloat16; None if unknown."""
    flags = _cpu_flags()
    return bool(flags & {"avx512_bf16", "amx_bf16"}) if flags else None


def multiplies_int8() -> bool | None:
    """Returns whether the processor adds up products of 8-bit integers in 32 bits (VNNI).

    Without, sums of two products can overflow 16 bits. None if unknown.
    """
    flags = _cpu_flags()
    return bool(flags & {"avx512_vnni", "avx_vnni"}) if flags else None


def check_interpreter() -> None:
    """Raises DeviceError if TensorFlow cannot be imported, or Convoy does not work with it.

    Python may strip docstrings, which it needs, or the processor may lack AVX: the import then ends
    the process.
    """
    if wrong := wrong_version(["tensorflow", "tensorflow-cpu", "keras", "numpy"]):
        raise DeviceError(f"{wrong}: {mend()}")
    flags = _cpu_flags()
    if flags and "avx" not in flags:
        raise DeviceError(
            "this processor has no AVX instructions, which TensorFlow's packages need: use another"
            " machine, or let its virtual machine show the processor's own features"
        )
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
    os.environ.setdefault(_LOG_LEVEL, "3")


# Lines that TensorFlow's C++ code prints before its logging is set up, whatever the level (W0000
# …), and those of TensorFlow Lite's quantiser.
_START_UP = re.compile(
    rb"^([WI]\d{4} \d\d:\d\d:|WARNING: All log messages before absl::Init|fully_quantize: \d)"
)


@contextmanager
def without_start_up_lines() -> Iterator[None]:
    """Drops lines such as `W0000 00:00:1717171717.171717 …` that C++ code prints in the block.

    Its other lines on standard error appear after the block. What Python prints appears at once.
    """
    try:
        own = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    with open(own, "wb") as target, tempfile.TemporaryFile() as lines:
        before, direct = sys.stderr, os.fdopen(own, "w", 1, errors="replace", closefd=False)
        os.dup2(lines.fileno(), 2)
        sys.stderr = direct
        try:
            yield
        finally:
            sys.stderr = before
            direct.close()
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
    if policy != "mixed_bfloat16" or has_gpu():
        return
    flags = _cpu_flags()
    if flags and "avx512bw" not in flags:
        logger.warning(
            "this processor has no instructions for bfloat16: training is slower and less exact"
            " than in float32, the default; leave out --dtype"
        )


def import_tensorflow() -> None:
    """Imports TensorFlow and Keras quickly and without start-up lines, for our own processes.

    If scikit-learn and matplotlib are installed, Keras loads them for wrappers and plots that we do
    not use, and TensorFlow SciPy for its old copy of Keras: together with the garbage collector
    that is two fifths of the processor time. Afterwards all can be imported as usual, but
    `keras.wrappers` and `keras.visualization` do without them.
    TensorFlow 2.21 prints two start-up lines whatever `quiet` asks for.

    Raises:
        DeviceError: packages are missing or installed in part.
    """
    if "keras" in sys.modules:
        return
    lines = without_start_up_lines() if _is_quiet() else nullcontext()
    try:
        with lines, _missing("sklearn", "matplotlib", "scipy"), without_garbage_collection():
            import keras  # noqa: F401
            import tensorflow  # noqa: F401
    except Exception as error:  # an AttributeError, say, if only the package's folder is there
        if text := broken_installation(error):
            raise DeviceError(text) from error
        raise


def _is_quiet() -> bool:
    return os.environ.get(_LOG_LEVEL, "") not in ("", "0")


@contextmanager
def _missing(*packages: str) -> Iterator[None]:
    """Makes imports of these packages fail in the block, as if they were not installed."""
    names = [name for name in packages if name not in sys.modules]
    for name in names:
        sys.modules[name] = None  # type: ignore[assignment]  # typeshed does not know it
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


# The compute capability of Blackwell, for which TensorFlow 2.21 and older contain no machine code.
_BLACKWELL = (10, 0)


def check_gpu(name: str, capability: tuple[int, ...], tensorflow: str, use_xla: bool) -> None:
    """Refuses GPUs that this TensorFlow's packages cannot use.

    Its packages contain machine code up to compute capability 9.0, and PTX, from which the driver
    compiles for newer GPUs. In 2.18 to 2.20 most of the PTX is `sm_90a`, which runs on Hopper only
    (tensorflow/tensorflow#90291). XLA in 2.21 writes PTX 8.5, which knows no Blackwell, and aborts
    the process (tensorflow/tensorflow#111958).

    Args:
        name: the GPU's name.
        capability: its compute capability, such as `(9, 0)`.
        tensorflow: TensorFlow's version.
        use_xla: whether XLA compiles for it.

    Raises:
        DeviceError: the GPU is too new; the text says what to do.
    """
    version = tuple(int(part) for part in re.findall(r"\d+", tensorflow)[:2])
    if capability < _BLACKWELL or version > (2, 21):
        return
    if version < (2, 21):
        raise DeviceError(
            f"TensorFlow {tensorflow} has no code for {name} (compute capability"
            f" {'.'.join(map(str, capability))}): install TensorFlow 2.21 (make setup)"
        )
    if use_xla:
        raise DeviceError(
            f"XLA in TensorFlow {tensorflow} cannot compile for {name} (compute capability"
            f" {'.'.join(map(str, capability))}): leave out --use_xla"
        )


def setup(
    *,
    local_rank: int,
    intraop_threads: int | None,
    interop_threads: int | None,
    tf32: bool,
    use_xla: bool = False,
) -> None:
    """Pins this process to its GPU, if there are any, and sets threads and TensorFloat-32.

    Args:
        local_rank: number of this process on this host, from 0.
        intraop_threads: threads within an operation; None: TensorFlow's choice.
        interop_threads: operations at the same time; None: TensorFlow's choice.
        tf32: whether float32 convolutions may round their inputs to TensorFloat-32.
        use_xla: whether XLA will compile, which some GPUs are too new for.

    Raises:
        DeviceError: there are GPUs, but fewer than processes on this host; or this process' GPU is
            too new for this TensorFlow.
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
        details = tf.config.experimental.get_device_details(gpus[local_rank])
        name, capability = details.get("device_name", "this GPU"), details.get("compute_capability")
        if capability and tf.sysconfig.get_build_info().get("is_cuda_build"):
            check_gpu(name, tuple(capability), tf.__version__, use_xla)
        tf.config.set_visible_devices(gpus[local_rank], "GPU")
        tf.config.experimental.set_memory_growth(gpus[local_rank], True)
    tf.config.experimental.enable_tensor_float_32_execution(tf32)


def why_no_gpu() -> str | None:
    """Returns why this process computes on the CPU although the machine has an NVIDIA driver.

    None if it has no driver, if the environment hides its GPUs, or if TensorFlow sees them.
    """
    import tensorflow as tf

    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1", "NoDevFiles")
    if hidden or not DRIVER.exists() or tf.config.list_physical_devices("GPU"):
        return None
    start = "there is an NVIDIA driver, but this run computes on the CPU: "
    if not tf.sysconfig.get_build_info().get("is_cuda_build"):
        return start + "TensorFlow was installed for CPUs; `make setup` here installs it for GPUs"
    found = re.search(r"Module\D*(\d+)\.", DRIVER.read_text())
    if found and int(found[1]) < OLDEST_DRIVER:
        return (
            f"{start}driver {found[1]} is too old for TensorFlow's CUDA 12: install"
            f" {OLDEST_DRIVER} or newer"
        )
    return start + "TensorFlow sees no GPU; --verbose shows its reasons, nvidia-smi the driver's"


def has_gpu() -> bool:
    """Returns whether this process computes on a GPU."""
    import tensorflow as tf

    return bool(tf.config.get_visible_devices("GPU"))


def precision(use_amp: bool, dtype: str | None, gpu: bool) -> str:
    """Returns the Keras dtype policy: `--dtype`, or the half precision of this device.

    `runtime.builders.precision` knows on which CPUs `--use_amp` means half precision.
    """
    short = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
    if dtype:
        name = short.get(dtype, dtype)
        return name if name == "float32" else f"mixed_{name}"
    if use_amp:
        return "mixed_float16" if gpu else "mixed_bfloat16"
    return "float32"
