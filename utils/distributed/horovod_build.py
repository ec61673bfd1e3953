"""Tells with which features the installed Horovod was built."""

from __future__ import annotations

from typing import Any


def build_info() -> dict[str, Any]:
    """Returns the build features of the installed Horovod; {} if there is none."""
    try:
        import horovod
        import horovod.tensorflow as hvd
    except ImportError:
        return {}
    return {
        "version": horovod.__version__,
        "gloo": bool(hvd.gloo_built()),
        "mpi": bool(hvd.mpi_built()),
        "nccl": bool(hvd.nccl_built()),
        "cuda": bool(hvd.cuda_built()),
    }
