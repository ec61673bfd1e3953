"""Lists all rows in the order in which `python -m benchmarks` measures them."""

from __future__ import annotations

from benchmarks.harness.program import Program
from benchmarks.harness.row import Row
from benchmarks.rows import inference, input, starts, training

ROWS: list[Row | Program] = [
    *training.ROWS,
    *input.ROWS,
    Program("scaling", "Weak scaling over Horovod, 2 processes", "benchmarks.scaling.weak_scaling"),
    Program("exchange", "What averaging gradients costs", "benchmarks.scaling.exchange"),
    Program("checkpoint", "What saving costs a training run", "benchmarks.costs.checkpoint"),
    *inference.ROWS,
    *starts.ROWS,
]
