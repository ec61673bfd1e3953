"""Compiles the training step for GPUs on a machine without one, and says what XLA made of it.

    python -m benchmarks.gpu.ahead write FILE [--arch …]   in a Python with TensorFlow
    python -m benchmarks.gpu.ahead compile FILE [CARD …]   in a Python with JAX's plugin for CUDA

TensorFlow's packages cannot compile for a GPU that is not there. They can say what XLA should
compile (HLO), and the XLA of JAX's CUDA plugin compiles for a described card. It is another
version of XLA than TensorFlow's, and tries no kernels out, so this shows that the step can be
compiled and how, not how fast it is.
"""

from __future__ import annotations

import argparse
import collections
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

# Of XLA's description of a card, what its compiler asks for.
CARD = """
gpu_device_info {{
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  core_count: {cores} l2_cache_size: {l2} memory_bandwidth: {bandwidth} clock_rate_ghz: {clock}
  device_memory_size: {memory} shared_memory_per_core: {shared}
  shared_memory_per_block_optin: {shared_block} shared_memory_per_block: 49152
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  fpus_per_core: {units} registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 3 }}
runtime_version {{ major: 12 minor: 5 }}
device_description_str: "{name}"
"""
CARDS = {
    "a100": {
        **{"name": "NVIDIA A100-SXM4-80GB", "major": 8, "minor": 0, "cores": 108, "units": 64},
        **{"l2": 41943040, "bandwidth": 2039000000000, "clock": 1.41, "memory": 85095874560},
        **{"shared": 167936, "shared_block": 166912},
    },
    "h100": {
        **{"name": "NVIDIA H100 80GB HBM3", "major": 9, "minor": 0, "cores": 132, "units": 128},
        **{"l2": 52428800, "bandwidth": 3352320000000, "clock": 1.98, "memory": 84942979072},
        **{"shared": 233472, "shared_block": 232448},
    },
}


def main(argv: list[str]) -> int:
    """Writes or compiles a step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    writes = commands.add_parser("write")
    writes.add_argument("file", type=Path)
    writes.add_argument("--arch", default="efficientnet-b0")
    writes.add_argument("--dtype", default="mixed_float16", help="a dtype policy of Keras")
    writes.add_argument("--data_format", default="channels_last")
    writes.add_argument("--image_size", type=int, default=224)
    writes.add_argument("--batch", type=int, default=256)
    compiles = commands.add_parser("compile")
    compiles.add_argument("file", type=Path)
    compiles.add_argument("cards", nargs="*", choices=[*CARDS, []], default=[*CARDS])
    given = parser.parse_args(argv)
    if given.command == "write":
        given.file.write_bytes(step_for_xla(given))
        return 0
    for card in given.cards:
        print(f"{card}: {compiled(given.file.read_bytes(), card)}", flush=True)
    return 0


def step_for_xla(given: argparse.Namespace) -> bytes:
    """Returns a step's forward and backward pass as a serialised HLO module for GPUs."""
    import keras
    import tensorflow as tf

    from convoy.model import build_model
    from convoy.runtime.train.loss_scale import LossScale
    from convoy.runtime.train.step import Step, TrainState
    from convoy.utils.optim.losses import cross_entropy
    from convoy.utils.optim.optimizers import make_optimizer

    keras.config.set_dtype_policy(given.dtype)
    size, batch = given.image_size, given.batch
    model = build_model(
        given.arch, num_classes=1000, image_size=size, data_format=given.data_format
    )
    optimizer = make_optimizer("momentum")
    optimizer.build(model.trainable_variables)
    state = TrainState(model, optimizer, LossScale("dynamic", "float16" in given.dtype))
    step = Step(state, loss=lambda logits, labels: cross_entropy(logits, labels, 0.1), use_xla=True)
    inputs = (
        tf.zeros([batch, size, size, 3], tf.uint8),
        tf.zeros([batch], tf.int32),
        tf.ones([batch]),
    )
    function: Any = step.forward_backward
    return function.experimental_get_compiler_ir(*inputs)(
        stage="hlo_serialized", platform_name="CUDA"
    )


def compiled(module: bytes, card: str) -> str:
    """Compiles an HLO module for a card, and describes the result."""
    os.environ.setdefault("JAX_PLATFORMS", "cuda,cpu")
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")  # there is no driver to check
    from jax._src import compiler
    from jax._src.interpreters.mlir import make_ir_context
    from jax._src.lib import _jax
    from jax.experimental.topologies import get_topology_desc
    from jaxlib.mlir import ir

    target = CARD.format(**CARDS[card])
    (device,) = get_topology_desc(
        "", platform="cuda", target_config=target, topology="1x1x1"
    ).devices
    options = compiler.get_compile_options(num_replicas=1, num_partitions=1)
    options.env_option_overrides = [("xla_gpu_autotune_level", "0")]  # that needs a GPU
    stable = ir.Module.parse(_jax.mlir.hlo_to_stablehlo(module), context=make_ir_context())
    begun = time.perf_counter()
    made = device.client.compile(stable, _jax.DeviceList((device,)), options)
    seconds = time.perf_counter() - begun
    text = made.hlo_modules()[0].to_string()
    calls = collections.Counter(re.findall(r'custom_call_target="([^"]+)"', text))
    kernels = ", ".join(f"{n} × {name}" for name, n in calls.most_common())
    fusions = len(re.findall(r"= \S+ fusion\(", text))
    memory = made.get_compiled_memory_stats().temp_size_in_bytes / 2**30
    return f"compiled in {seconds:.0f} s: {fusions} fusions, {kernels}; {memory:.1f} GiB at work"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
