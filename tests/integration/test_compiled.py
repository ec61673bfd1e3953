"""XLA under Horovod and with synchronised batch norm; NCHW, which needs XLA on a CPU."""

import json

import numpy as np
import pytest

from convoy.runtime.run_folder import checkpoint
from tests.integration.in_process import start
from tests.integration.logs import losses

EXACT = ("--dropout", "0", "--stochastic_depth", "0")


@pytest.fixture
def flags(small_run, tiny):
    return (*small_run, *EXACT, "--data_dir", tiny, "--max_epochs", "1", "--warmup_epochs", "0")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("batch_norm", ["default", "syncbn"])
def test_two_ranks_compiled_by_xla_have_the_losses_of_ranks_without_xla(
    convoy, flags, tmp_path, log_lines, batch_norm
):
    """With synchronised batch norm the reference is one process with the whole batch and no XLA."""
    halves = ("--train_batch_size", "8", "--batch_norm", batch_norm)
    plain, xla = tmp_path / "plain", tmp_path / "xla"
    convoy(*flags, *halves, "--use_xla", "--model_dir", xla, np=2, timeout=400)
    if batch_norm == "syncbn":
        convoy(*flags, "--model_dir", plain)
    else:
        convoy(*flags, *halves, "--model_dir", plain, np=2)
    one, other = (losses(log_lines(folder / "log.json")) for folder in (plain, xla))
    assert len(one) == len(other) == 7
    np.testing.assert_allclose(other, one, atol=2e-3)
    # Before rounding differences can grow.
    np.testing.assert_allclose(other[:2], one[:2], atol=1e-4)
    data = [line.get("data", {}) for line in log_lines(xla / "log.json")]
    (own,) = [values["train.rank_own_time"] for values in data if "train.rank_own_time" in values]
    # There is no time of each rank's own passes where ranks wait for each other within a pass.
    assert [seconds is None for seconds in own] == [batch_norm == "syncbn"] * 2


def written(cache):
    """Returns when each cache entry was written."""
    return {path: path.stat().st_mtime_ns for path in cache.rglob("*.pb")}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_resumed_run_reuses_the_compiled_functions_of_the_first(convoy, flags, tmp_path):
    """Two processes, whose function names and counters differ, share the cache."""
    flags = (*flags, "--mode", "train", "--max_epochs", "2", "--model_dir", tmp_path / "run")
    flags += ("--use_xla", "--xla_cache", tmp_path / "cache", "--train_batch_size", "8")
    begun = convoy(*flags, "--run_epochs", "1", np=2, timeout=400).text
    kept = written(tmp_path / "cache")
    assert len(kept) == 2  # one for each half of the step
    assert "compiled functions" not in begun
    resumed = convoy(*flags, "--resume_checkpoint", np=2, timeout=400).text
    assert "resuming from" in resumed
    assert resumed.count("--xla_cache has 2 compiled functions") == 1
    assert written(tmp_path / "cache") == kept


def test_an_unusable_xla_cache_is_refused_before_the_run_folder_is_made(flags, tmp_path, capfd):
    file = tmp_path / "file"
    file.touch()
    start(*flags, "--use_xla", "--xla_cache", file, "--model_dir", tmp_path / "run", code=2)
    assert f"--xla_cache {file}: Not a directory" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_checkpoint_is_independent_of_the_data_format(flags, tmp_path, photos, capsys):
    """One epoch in NCHW, the next in NHWC from its checkpoint, then predictions in both."""
    flags = (*flags, "--mode", "train", "--max_epochs", "2", "--model_dir", tmp_path / "run")
    start(*flags, "--data_format", "channels_first", "--use_xla", "--run_epochs", "1")
    start(*flags, "--resume_checkpoint")
    assert "resuming from" in capsys.readouterr().out
    assert checkpoint.read(checkpoint.latest(tmp_path / "run")).state["epoch"] == 2
    tables = []
    for layout in ("channels_last", "channels_first"):
        out = tmp_path / layout
        start(
            *("--mode", "predict", "--model_dir", tmp_path / "run", "--predict_dir", photos),
            *("--output", out, "--data_format", layout, "--use_xla", "--checkpoint", "last"),
        )
        rows = [json.loads(line) for line in out.with_suffix(".jsonl").read_text().splitlines()]
        tables.append([{p["class"]: p["probability"] for p in row["predictions"]} for row in rows])
    for one, other in zip(*tables, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_channels_first_on_a_cpu_is_refused_without_xla(flags, tmp_path, capsys):
    start(*flags, "--model_dir", tmp_path / "run", "--data_format", "channels_first", code=2)
    message = " ".join(capsys.readouterr().err.split())
    assert "--data_format channels_first needs a GPU, or --use_xla" in message
    assert "Traceback" not in message
