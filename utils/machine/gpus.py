"""Asks NVIDIA's driver about GPUs, without TensorFlow."""

from __future__ import annotations

import ctypes


def visible_gpus() -> int:
    """Returns the number of GPUs that the driver and `CUDA_VISIBLE_DEVICES` show this process."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def driver_cuda() -> tuple[int, int]:
    """Returns the newest CUDA version that the driver supports; (0, 0) without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0, 0
    version = ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(version)):
        return 0, 0
    return version.value // 1000, version.value % 1000 // 10
