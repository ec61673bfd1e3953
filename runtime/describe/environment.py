"""Shows `--mode env`: the software and hardware of this installation, for bug reports."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from contextlib import suppress
from typing import Any

from convoy.utils import strict_json
from convoy.utils.distributed import ranks
from convoy.utils.distributed.horovod_build import build_info, why_missing
from convoy.utils.extras import DALI
from convoy.utils.files import path_of, write_atomically

FILE = "environment.json"
PACKAGES = (
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "numpy",
    "protobuf",
    "horovod",
    "jsonargparse",
    "safetensors",
)
OPTIONAL = (
    *DALI.values(),
    "onnxruntime",
    "tf2onnx",
    "tensorflow-datasets",
    "dllogger",
    "scikit-learn",
)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    """Returns the processor's name."""
    with suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def gather(horovod: bool = True) -> dict[str, Any]:
    """Returns versions, devices and build facts as plain data.

    Args:
        horovod: also Horovod's, which loads it.
    """
    import tensorflow as tf

    from convoy.dataloader import native as input_native
    from convoy.dataloader.images.by_pillow import kinds_here
    from convoy.model import native as training_native

    gpus = [
        tf.config.experimental.get_device_details(gpu)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    build = tf.sysconfig.get_build_info()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "cpu cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "packages": {
            name: version for name in (*PACKAGES, *OPTIONAL) if (version := _version(name))
        },
        "gpus": [gpu.get("device_name", "unknown") for gpu in gpus],
        "tensorflow built with CUDA": build.get("cuda_version")
        if build.get("is_cuda_build")
        else None,
        "native input operations": input_native.status(),
        "native training operations": training_native.status(),
        # Loading it takes a second, which a single process can save.
        "horovod": build_info() if horovod else {},
        "dali": next(filter(None, map(_version, DALI.values())), None),
        "pictures": kinds_here(),
    }


def record(model_dir: str) -> None:
    """Records a run's machine and software, and each rank's host, in its folder.

    All ranks must call it.
    """
    hosts = ranks.all_gather_object(platform.node())
    if ranks.rank() == 0:
        facts = gather(ranks.size() > 1) | {"processes": ranks.size(), "hosts": hosts}
        write_atomically(path_of(model_dir) / FILE, strict_json.dumps(facts, indent=1))


def _exchange(horovod: dict[str, Any], gpus: bool) -> str:
    """Says how several processes would exchange their gradients."""
    if not horovod:
        return "need Horovod"
    if horovod["nccl"]:
        return "go from GPU to GPU, through NCCL"
    way = "MPI or Gloo" if horovod["mpi"] else "Gloo"
    slow = ": slow, as Horovod was built without NCCL" if gpus else ""
    return f"go through the host's memory, by {way}{slow}"


def show() -> dict[str, Any]:
    """Prints the environment."""
    facts = gather()
    horovod = facts["horovod"]
    built = [
        name.upper() if name != "gloo" else "Gloo"
        for name in ("gloo", "mpi", "nccl", "cuda")
        if horovod.get(name)
    ]
    lines = {
        "Python": f"{facts['python']} on {facts['platform']}",
        "CPU": f"{facts['cpu']}, {facts['memory'] / 2**30:.0f} GiB of memory",
        "CPU cores": facts["cpu cores"],
        "GPUs": ", ".join(facts["gpus"]) or "none",
        "CUDA": facts["tensorflow built with CUDA"] or "TensorFlow was built without",
        "Horovod": f"{horovod['version']}, built with {', '.join(built)}"
        if horovod
        else why_missing(),
        "gradients of several processes": _exchange(horovod, bool(facts["gpus"])),
        "DALI": facts["dali"] or "not installed (the extra dali)",
        "pictures": ", ".join(facts["pictures"]),
        "native input operations": facts["native input operations"],
        "native training operations": facts["native training operations"],
    }
    for name, text in (*lines.items(), *facts["packages"].items()):
        print(f"{name:<32}{text}")
    return facts
