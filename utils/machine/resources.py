"""What a stretch of work takes: memory and energy, where this machine lets them be read."""

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
"""What errors say that mean it: Python's, TensorFlow's, ONNX Runtime's, PyTorch's, CUDA's."""


NO_DISK = re.compile(r"No space left on device|Disk quota exceeded", re.I)
"""What TensorFlow's file system says: it has the same kind of error as for memory."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, TensorFlow, ONNX Runtime or TensorFlow Lite means that."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    tf = sys.modules.get("tensorflow")  # without it there are no errors of its own
    if tf is None or too_little_disk(error) or "Too many open files" in str(error):
        return False
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return True
    runtimes = isinstance(error, (RuntimeError, tf.errors.OpError))
    return runtimes and bool(NO_MEMORY.search(str(error)))


def too_little_disk(error: BaseException) -> bool:
    """Whether an error of Python or TensorFlow means that a disk, or a quota on it, is full."""
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return True
    return not isinstance(error, UserError) and bool(NO_DISK.search(str(error)))


def allow_open_files(count: int = 65536) -> None:
    """Raises how many files this process may have open to what the system lets it, at most `count`:
    many start with 1,024, and a data set may have as many record files.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(hard, count)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


CGROUP = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Bytes that can still be taken: the machine's, or the container's where that is less."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError, StopIteration), open("/proc/meminfo") as file:
        line = next(line for line in file if line.startswith("MemAvailable:"))
        free = 1024 * int(line.split()[1])
    for folder, limit, taken in (
        (CGROUP, "memory.max", "memory.current"),
        (CGROUP / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),  # version 1
    ):
        with suppress(OSError, ValueError):  # "max" where there is no limit
            left = int((folder / limit).read_text()) - int((folder / taken).read_text())
            free = min(free, left + _file_cache(folder / "memory.stat"))
    return max(0, free)


def _file_cache(statistics: Path) -> int:
    """Bytes of files' content that a container's count includes, and gives back when asked for."""
    with suppress(OSError, ValueError):
        for line in statistics.read_text().splitlines():
            if line.startswith(("inactive_file ", "total_inactive_file ")):
                return int(line.split()[1])
    return 0


class PeakMemory:
    """The most memory taken since this was made: of the GPU, or of the process without one.

    Args:
        gpu: whether this process computes on a GPU.

    Attributes:
        of: "device" (what TensorFlow's allocator gave out) or "process" (resident set); "process
            since its start" where the kernel does not let its record be reset.
        before: bytes taken when this was made, whatever was taken earlier.
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
        self.before = self.read() if self._gpu else _of_process("VmRSS")

    def read(self) -> int:
        """Bytes."""
        if self._gpu:
            import tensorflow as tf

            return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
        return _of_process("VmHWM")


def _of_process(what: str) -> int:
    """Bytes of main memory of this process: "VmRSS", now, or "VmHWM", at most.

    The most it ever had where the kernel does not tell.
    """
    with suppress(OSError, ValueError, StopIteration), open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(f"{what}:"))
        return 1024 * int(line.split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _reset_device() -> bool:
    """Begins the device's record anew; False where its allocator keeps none."""
    import tensorflow as tf

    try:
        tf.config.experimental.reset_memory_stats("GPU:0")
    except ValueError:
        return False
    return True


class Energy:
    """Energy of the processors' packages since this was made, by RAPL's counters on Linux.

    It is the whole machine's, whoever else computes on it. GPUs are not in it.

    Args:
        folder: where the kernel shows the counters.
    """

    def __init__(self, folder: Path = POWERCAP) -> None:
        self._counters: dict[Path, tuple[int, int]] = {}  # to the last reading and the range
        self._joules = 0.0
        for zone in sorted(folder.glob("*-rapl:*")):
            # Zones within packages, and "psys" around them, would count the same energy again.
            with suppress(OSError, ValueError):
                if (zone / "name").read_text().startswith("package"):
                    counter = zone / "energy_uj"
                    whole = int((zone / "max_energy_range_uj").read_text())
                    self._counters[counter] = int(counter.read_text()), whole

    def read(self) -> float | None:
        """Joules; None where nothing can be read. Counters may wrap once between two readings."""
        for counter, (last, whole) in self._counters.items():
            try:
                now = int(counter.read_text())
            except (OSError, ValueError):
                return None
            self._joules += (now - last if now >= last else now - last + whole) / 1e6
            self._counters[counter] = now, whole
        return self._joules if self._counters else None
