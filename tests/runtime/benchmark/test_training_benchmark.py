"""The training benchmark: its updates, batches that do not fit, a resumed run."""

import json
import math

import pytest

from convoy.runtime.settings.config import Config
from main import main

TOO_MANY = 10**12
QUICK = (
    *("--arch", "efficientnet-test", "--image_size", "32", "--num_classes", "10"),
    *("--data_backend", "synthetic", "--prof", "4", "--benchmark_warmup", "2"),
    *("--augmenter_name", "none"),
)


def test_the_training_benchmark_times_updates_and_notes_what_is_out_of_memory(tmp_path):
    flags = ("--mode", "training_benchmark", *QUICK)
    place = tmp_path / "deep" / "speed"  # an existing folder, so the files go into it
    place.mkdir(parents=True)
    where = ("--output", str(place), "--model_dir", str(tmp_path))
    sizes = ("--benchmark_batch_sizes", f"2,{TOO_MANY}", "--grad_accum_steps", "2")
    # A run of five updates, although six are requested.
    short = ("--max_epochs", "1", "--steps_per_epoch", "5", "--warmup_epochs", "0")
    assert main([*flags, *where, *sizes, *short]) == 0
    first, second = json.loads((place / "training_benchmark_1x.json").read_text())["cells"]
    assert (first["warmup_iterations"], first["iterations"]) == (2, 3)
    assert first["images_per_iteration"] == 4
    assert first["passes_per_update"] == 2
    assert second["note"] == "out of memory"
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.slow
def test_a_benchmark_that_measures_nothing_is_an_error(tmp_path, capsys):
    flags = ("--mode", "training_benchmark", *QUICK)
    where = ("--output", str(tmp_path / "speed"), "--model_dir", str(tmp_path))
    assert main([*flags, *where, "--benchmark_batch_sizes", str(TOO_MANY)]) == 1
    assert "nothing could be measured: out of memory" in capsys.readouterr().err


def test_a_resumed_benchmark_shortens_its_warm_up_to_the_steps_left(monkeypatch):
    from types import SimpleNamespace

    import convoy.runtime.benchmark.training as benchmark
    from convoy.runtime.train.sizes import Last, Sizes

    class Resumed:
        """A stand-in for `Trainer` at epoch 2 of 3, with 10 steps in each."""

        sizes, last = Sizes(1, images_per_step=4, steps_per_epoch=10), Last(3, math.inf)
        state = SimpleNamespace(epoch=2, offset=0)

        def __init__(self, config, run_log, callbacks):
            self.meter, self.figures = callbacks[0], SimpleNamespace()

        def run(self):
            for step in range(10):
                self.figures.throughput.add(4, 0.0, float(step))
                self.meter.on_train_batch_end(step)

    monkeypatch.setattr(benchmark, "Trainer", Resumed)
    found = benchmark.train(
        Config(mode="training_benchmark", data_backend="synthetic", prof=4, benchmark_warmup=8),
        None,
    )
    assert found["warmup_iterations"] == 6
    assert found["compute"].tolist() == [6, 7, 8, 9]
