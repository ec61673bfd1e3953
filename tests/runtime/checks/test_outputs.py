"""Places where a mode may not write are refused before anything is computed."""

import shutil

import pytest
from PIL import Image

from convoy.runtime.checks import outputs
from convoy.runtime.command_line.cli import parse
from convoy.runtime.describe import environment
from convoy.runtime.report import training_page
from convoy.runtime.run_folder import ownership
from convoy.runtime.trackers import workers
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


@pytest.fixture
def photos(tmp_path):
    """A folder "photos" with two classes and two splits."""

    def picture(name, i):
        return Image.new("RGB", (8, 8))

    splits = {"train": {"cat": 2, "dog": 2}, "val": {"cat": 1, "dog": 1}}
    return write_class_folders(tmp_path / "photos", splits, picture, "png")


@pytest.fixture
def run_of_photos(trained, photos, tmp_path):
    """A copy of a run's settings and log, as if it had been trained on the photos."""
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(trained.model_dir / "log.json", run)
    text = (trained.model_dir / "config.yaml").read_text()
    lines = (f"data_dir: {photos}" if x.startswith("data_dir:") else x for x in text.splitlines())
    (run / "config.yaml").write_text("\n".join(lines) + "\n")
    shutil.copytree(trained.model_dir / "checkpoints", run / "checkpoints")
    return run


@pytest.mark.parametrize("place", ["photos/train/run", "photos/val", "photos/train/cat", "all"])
def test_a_run_does_not_lie_among_its_class_folders(tmp_path, photos, refused, place):
    shutil.copytree(photos / "train", tmp_path / "all")
    data = tmp_path / place.split("/")[0]
    flags = ("--data_dir", data, "--model_dir", tmp_path / place)
    more = ("--validation_fraction", "0.5") if place == "all" else ()
    assert "lies among the class folders in" in refused(*flags, *more)
    assert not (tmp_path / place / "in_use.json").exists()


@pytest.mark.parametrize(
    "flags",
    [
        ["predict", "--predict_dir", ".", "--output", "{}/labels/all"],
        ["export", "--output", "{}/export"],
        ["eval", "--report", "--report_dir", "{}/page"],
        ["eval", "--cache", "disk", "--cache_dir", "{}/cache"],
        ["report", "--runs", "{}/../../run", "--output", "{}/comparison"],
        ["inference_benchmark", "--output", "{}/times/b0"],
    ],
)
def test_no_mode_adds_a_class_to_the_data_of_its_run(run_of_photos, photos, refused, flags):
    flags = [flag.format(photos / "train") for flag in flags]
    message = refused(*flags, "--model_dir", run_of_photos)
    assert f"{flags[-2]} {flags[-1]} lies among the class folders in {photos}/train" in message
    assert sorted(path.name for path in (photos / "train").iterdir()) == ["cat", "dog"]


def test_a_file_beside_the_images_is_no_class(run_of_photos, photos):
    flags = ["predict", "--predict_dir", str(photos), "--model_dir", str(run_of_photos)]
    parse([*flags, "--output", str(photos / "train/cat/labels")])


@pytest.mark.parametrize(
    ("flags", "name", "word"),
    [
        (["report", "--runs", "{run}", "--output", "{}/mine.html"], "mine.html", "page"),
        (["eval", "--report", "--report_dir", "{}"], "report.html", "page"),
        (["eval", "--report", "--report_dir", "{}"], "metrics.json", "result"),
        (["inference_benchmark", "--output", "{}/a.json"], "a.json", "benchmark"),
        (["training_benchmark", "--output", "{}/notes"], "notes.md", "benchmark"),
        (["report", "--runs", "{run}", "--output", "{}/"], "comparison.html", "page"),
        (["training_benchmark", "--output", "{}"], "training_benchmark_1x.md", "benchmark"),
        (
            ["training_benchmark", "--nproc", "2", "--output", "{}/"],
            "training_benchmark_2x.json",
            "benchmark",
        ),
    ],
)
def test_no_mode_replaces_what_people_wrote(trained, refused, tmp_path, flags, name, word):
    (tmp_path / name).write_text('{"mine": 1}')
    run = trained.model_dir
    flags = [flag.format(tmp_path, run=run) for flag in flags]
    message = refused(*flags, "--model_dir", run)
    assert f"{name} exists, and is not " in message
    assert word in message
    assert f"move the file, or choose another {flags[-2]}" in message
    assert (tmp_path / name).read_text() == '{"mine": 1}'


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (["report", "--runs", "{run}"], "comparison.html"),
        (["training_benchmark"], "training_benchmark_1x.json"),
    ],
)
def test_no_mode_replaces_what_people_wrote_in_model_dir(trained, refused, tmp_path, flags, name):
    (tmp_path / name).write_text("mine")
    flags = [flag.format(run=trained.model_dir) for flag in flags]
    message = refused(*flags, "--model_dir", tmp_path)
    assert f"{tmp_path / name} exists, and is not " in message
    assert "choose another --output" in message
    assert (tmp_path / name).read_text() == "mine"


def test_the_names_that_a_log_may_not_take_are_those_of_a_run():
    written = {environment.FILE, ownership.FILE, workers.KEPT, training_page.PAGE}
    assert written | {"config.yaml"} == outputs._OF_A_RUN


@pytest.mark.parametrize("name", ["config.yaml", "environment.json", "notes.txt"])
def test_a_log_takes_no_other_files_place(trained, refused, tmp_path, name):
    (tmp_path / "notes.txt").write_text("mine")
    flags = (*trained.flags, "--model_dir", tmp_path, "--log_filename", name)
    message = refused(*flags)
    assert f"{name}" in message
    assert "choose another" in message
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_new_run_does_not_replace_settings_that_people_wrote(trained, refused, tmp_path):
    (tmp_path / "config.yaml").write_text("arch: efficientnet-b0  # mine\n")
    message = refused(*trained.flags, "--model_dir", tmp_path)
    assert "config.yaml exists, and is not the settings of a run" in message
    shutil.copy(trained.model_dir / "config.yaml", tmp_path)
    parse([*trained.flags, "--model_dir", str(tmp_path)])
