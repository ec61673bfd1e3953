"""Places where a mode may not write are refused before anything is computed."""

import pytest


@pytest.fixture
def inside(trained):
    """The folder of a checkpoint."""
    return next((trained.model_dir / "checkpoints").iterdir())


@pytest.mark.parametrize(
    "flags",
    [
        ["convert", "--overwrite", "--output", "{}/model.safetensors"],
        ["predict", "--predict_dir", ".", "--output", "{}/x"],
        ["export", "--output", "{}"],
        ["report", "--runs", "{}/../..", "--output", "{}/page"],
        ["inference_benchmark", "--output", "{}/x"],
        ["eval", "--report", "--report_dir", "{}/x"],
        ["eval", "--cache", "disk", "--cache_dir", "{}/../cache"],
        ["eval", "--use_xla", "--xla_cache", "{}/../cache"],
        ["lr_find", "--model_dir", "{}"],
        ["train", "--model_dir", "{}/run"],
        ["eval", "--log_filename", "checkpoints/log.json"],
    ],
)
def test_no_mode_writes_among_the_checkpoints_of_a_run(trained, refused, inside, flags):
    before = {file: file.read_bytes() for file in inside.iterdir()}
    where = () if "--model_dir" in flags else ("--model_dir", trained.model_dir)
    message = refused(*(flag.format(inside) for flag in flags), *where)
    assert f"lies among the checkpoints in {inside.parent}" in message
    assert {file: file.read_bytes() for file in inside.iterdir()} == before


def test_an_export_needs_a_folder(trained, refused, tmp_path):
    (tmp_path / "file").touch()
    output = ("--output", tmp_path / "file")
    message = refused("export", "--model_dir", trained.model_dir, *output)
    assert f"--output {tmp_path}/file is a file, and exports need a folder" in message
