"""Loads Horovod, and tells how the installed one was built."""

from __future__ import annotations

import importlib.util
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from convoy.utils.errors import UserError

_AGAIN = "run `make setup`, which builds it again"


class HorovodError(UserError, ImportError):
    """Horovod is missing, or does not load with the installed TensorFlow."""


def load() -> Any:
    """Imports and returns `horovod.tensorflow`.

    Raises:
        HorovodError: it is not installed, was built for another TensorFlow, or does not load. The
            text says how to get one that does.
    """
    import tensorflow as tf

    built, here = _built_for(), tf.__version__
    another = f"Horovod was built for TensorFlow {built}, and {here} is installed: {_AGAIN}"
    # It might load, and fail later: only releases of one minor version have the same interface.
    if built and built.split(".")[:2] != here.split(".")[:2]:
        raise HorovodError(another)
    try:
        import horovod.tensorflow as hvd
    except (ImportError, OSError, tf.errors.OpError) as error:
        if built and built != here:
            raise HorovodError(another) from error
        if built and not isinstance(error, ModuleNotFoundError):
            first = str(error).strip().split("\n")[0]
            raise HorovodError(f"Horovod does not load ({first}): {_AGAIN}") from error
        raise HorovodError(
            f"Horovod is not installed for this TensorFlow ({error}): run `make setup`"
        ) from error
    return hvd


def _built_for() -> str | None:
    """Returns the version of TensorFlow that Horovod recorded when it was built, if it did."""
    with suppress(ImportError, ValueError, OSError):
        found = importlib.util.find_spec("horovod")
        if found is not None and found.origin:
            file = Path(found.origin).parent / "metadata.json"
            version = json.loads(file.read_text()).get("tensorflow")
            return version if isinstance(version, str) else None
    return None


def build_info() -> dict[str, Any]:
    """Returns the build features of the installed Horovod; {} if none can be loaded."""
    try:
        hvd = load()
    except HorovodError:
        return {}
    import horovod

    return {
        "version": horovod.__version__,
        "gloo": bool(hvd.gloo_built()),
        "mpi": bool(hvd.mpi_built()),
        "nccl": bool(hvd.nccl_built()),
        "cuda": bool(hvd.cuda_built()),
    }


def why_missing() -> str:
    """Returns why no Horovod can be loaded, and the way out; "" if one can."""
    try:
        load()
    except HorovodError as error:
        return str(error)
    return ""
