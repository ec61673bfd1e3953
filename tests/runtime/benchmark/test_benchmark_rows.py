"""The measuring of one row of a benchmark, including building its model."""

import pytest

from convoy.runtime.benchmark import benchmark
from convoy.runtime.benchmark.plan import Row
from convoy.runtime.settings.config import Config


@pytest.fixture
def measure(monkeypatch):
    """Returns the cells of a row of the inference benchmark, with a model made by `make`."""

    def cells(make, batches):
        monkeypatch.setattr(benchmark, "Inference", make)
        monkeypatch.setattr(benchmark, "set_precision", lambda config: None)
        flags = {"mode": "inference_benchmark", "data_backend": "synthetic"}
        config = Config(**flags, benchmark_batch_sizes=batches)
        return list(benchmark._measure_row(config, Row("keras", "fp32", False), None))

    return cells


def test_a_model_too_large_for_memory_ends_its_row_and_not_the_program(measure):
    def make(config, row, folder):
        raise MemoryError

    (cell,) = measure(make, "1,2")
    assert (cell["batch_size"], cell["note"]) == (1, "out of memory")


def test_one_model_is_built_for_all_batch_sizes(measure):
    import numpy as np

    made = []

    def make(config, row, folder):
        made.append(folder.is_dir())
        times = np.ones(2)
        result = {"data": times, "compute": times, "energy": None}
        return lambda now: result | {"images_per_iteration": now.eval_batch_size}

    cells = measure(make, "1,2,3")
    assert [cell["throughput"] for cell in cells] == [0.5, 1.0, 1.5]
    assert made == [True]
