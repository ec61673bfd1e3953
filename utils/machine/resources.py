"""Measures the memory and energy of a piece of work, if this machine allows it."""

from __future__ import annotations

import errno
import os
import re
import resource
import sys
from contextlib import suppress
from pathlib import Path

from convoy.utils.errors import UserError

POWERCAP = Path("/sys/class/powercap")
NO_MEMORY = re.compile(
    r"out[ _]of[ _]memory|\bOOM\b|bad_alloc|allocate memory|RESOURCE_EXHAUSTED|ALLOC_FAILED"
    r"|MemoryError",
    re.I,
)
"""Texts of out-of-memory errors: Python's, TensorFlow's, ONNX Runtime's, PyTorch's, CUDA's."""


NO_DISK = re.compile(r"No space left on device|Disk quota exceeded", re.I)
"""Text of TensorFlow's disk errors: it uses the same error class as for memory."""


def out_of_memory(error: BaseException) -> bool:
    """Returns whether an error of Python, TensorFlow, ONNX Runtime or TFLite says: no memory."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    tf = sys.modules.get("tensorflow")  # not imported: then the error is not TensorFlow's
    if tf is None or too_little_disk(error) or "Too many open files" in str(error):
        return False
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return True
    runtimes = isinstance(error, (RuntimeError, tf.errors.OpError))
    return runtimes and bool(NO_MEMORY.search(str(error)))


def too_little_disk(error: BaseException) -> bool:
    """Returns whether an error of Python or TensorFlow means that a disk or a quota is full."""
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return True
    return not isinstance(error, UserError) and bool(NO_DISK.search(str(error)))


def allow_open_files(count: int = 65536) -> None:
    """Raises this process's limit of open files to the system's maximum, at most `count`.

    Many systems start with 1,024, and a data set may have as many record files.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(hard, count)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


CGROUP = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Returns the free memory in bytes: the machine's, or the container's if that is less."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError, StopIteration), open("/proc/meminfo") as file:
        line = next(line for line in file if line.startswith("MemAvailable:"))
        free = 1024 * int(line.split()[1])
    for folder, limit, taken in (
        (CGROUP, "memory.max", "memory.current"),
        (CGROUP / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),  # version 1
    ):
        with suppress(OSError, ValueError):  # "max" if there is no limit
            left = int((folder / limit).read_text()) - int((folder / taken).read_text())
            free = min(free, left + _file_cache(folder / "memory.stat"))
    return max(0, free)


def memory_with_swap() -> int:
    """Returns a machine's whole memory and swap in bytes, or a container's if that is less."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError, StopIteration), open("/proc/meminfo") as file:
        line = next(line for line in file if line.startswith("SwapTotal:"))
        whole += 1024 * int(line.split()[1])
    with suppress(OSError, ValueError):  # "max" if there is no limit
        limit = int((CGROUP / "memory.max").read_text())
        whole = min(whole, limit + int((CGROUP / "memory.swap.max").read_text()))
    with suppress(OSError, ValueError):  # version 1: both together
        whole = min(whole, int((CGROUP / "memory" / "memory.memsw.limit_in_bytes").read_text()))
    return whole


def _file_cache(statistics: Path) -> int:
    """Returns the cached file contents in a container's count, which the system frees on demand."""
    with suppress(OSError, ValueError):
        for line in statistics.read_text().splitlines():
            if line.startswith(("inactive_file ", "total_inactive_file ")):
                return int(line.split()[1])
    return 0


def resident_memory() -> int:
    """Returns this process's main memory in bytes."""
    return _of_process("VmRSS")


class PeakMemory:
    """Measures the peak memory since its creation: of the GPU, or without one of the process.

    Args:
        gpu: whether this process computes on a GPU.

    Attributes:
        of: "device" (given out by TensorFlow's allocator) or "process" (resident set); "process
            since its start" if the kernel cannot reset its record.
        before: bytes in use at creation, without earlier peaks.
    """

    def __init__(self, gpu: bool) -> None:
        self._gpu = gpu and _reset_device()
        self.of = "device"
        if not self._gpu:
            self.of = "process"
            try:
                Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM: man 5 proc
            except OSError:
                self.of = "process since its start"
        self.before = self.read() if self._gpu else resident_memory()

    def read(self) -> int:
        """Returns the peak in bytes."""
        if self._gpu:
            import tensorflow as tf

            return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
        return _of_process("VmHWM")


def _of_process(what: str) -> int:
    """Returns this process's main memory in bytes: "VmRSS", now, or "VmHWM", the peak.

    If the kernel does not report it, returns the peak since the process began.
    """
    with suppress(OSError, ValueError, StopIteration), open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(f"{what}:"))
        return 1024 * int(line.split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _reset_device() -> bool:
    """Resets the device's peak; returns False if its allocator keeps none."""
    import tensorflow as tf

    try:
        tf.config.experimental.reset_memory_stats("GPU:0")
    except ValueError:
        return False
    return True


class Energy:
    """Measures the energy of the CPU packages since its creation, with RAPL's counters on Linux.

    This is for the whole machine, including other programs. It excludes GPUs.

    Args:
        folder: folder of the kernel's counters.
    """

    def __init__(self, folder: Path = POWERCAP) -> None:
        self._counters: dict[Path, tuple[int, int]] = {}  # counter -> last reading and range
        self._joules = 0.0
        for zone in sorted(folder.glob("*-rapl:*")):
            # Skip zones within packages, and "psys" around them: they would count the same energy
            # again.
            with suppress(OSError, ValueError):
                if (zone / "name").read_text().startswith("package"):
                    counter = zone / "energy_uj"
                    whole = int((zone / "max_energy_range_uj").read_text())
                    self._counters[counter] = int(counter.read_text()), whole

    def read(self) -> float | None:
        """Returns joules; None if nothing can be read.

        Counters may wrap once between two readings.
        """
        for counter, (last, whole) in self._counters.items():
            try:
                now = int(counter.read_text())
            except (OSError, ValueError):
                return None
            self._joules += (now - last if now >= last else now - last + whole) / 1e6
            self._counters[counter] = now, whole
        return self._joules if self._counters else None
