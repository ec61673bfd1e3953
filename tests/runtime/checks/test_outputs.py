"""Places where a mode may not write are refused before anything is computed."""

import shutil

import pytest
from PIL import Image

from tests.runtime.class_folders import write_class_folders


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


@pytest.mark.parametrize("place", ["photos/train/run", "photos/val", "photos/train/cat", "all"])
def test_a_run_does_not_lie_among_its_class_folders(tmp_path, refused, place):
    def picture(name, i):
        return Image.new("RGB", (8, 8))

    splits = {"train": {"cat": 2, "dog": 2}, "val": {"cat": 1, "dog": 1}}
    write_class_folders(tmp_path / "photos", splits, picture, "png")
    shutil.copytree(tmp_path / "photos/train", tmp_path / "all")
    data = tmp_path / place.split("/")[0]
    flags = ("--data_dir", data, "--model_dir", tmp_path / place)
    more = ("--validation_fraction", "0.5") if place == "all" else ()
    assert "lies among the class folders in" in refused(*flags, *more)
    assert not (tmp_path / place / "in_use.json").exists()
