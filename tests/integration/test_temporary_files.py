"""Temporary files after a killed process."""

import pytest


@pytest.mark.slow
def test_a_killed_run_leaves_no_temporary_files(convoy, small_run, tiny, tmp_path):
    """AutoGraph would leave one per converted function: dozens per rank."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    flags = [flag for flag in small_run if flag not in ("--augmenter_name", "none")]
    flags += ["--augmenter_name", "trivialaugment", "--mixup_alpha", "0.2", "--max_epochs", "500"]
    flags += ["--data_dir", tiny, "--model_dir", tmp_path / "run"]
    running = convoy.start(*flags, env={"TMPDIR": str(temporary)})
    running.wait_for("epoch 2/500")  # an evaluation is complete by then
    running.end()
    assert [path.name for path in temporary.rglob("*") if path.is_file()] == []
