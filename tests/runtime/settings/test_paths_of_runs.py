"""A run's relative paths are resolved against the folder that its command was started in."""

from __future__ import annotations

import shutil

import pytest
import yaml

from convoy.runtime.command_line.cli import configure
from convoy.runtime.settings.config import Config, load_config
from convoy.runtime.settings.paths_of_runs import load_run_config


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with data and with a run that was started in this folder; the test runs outside."""
    folder = tmp_path / "project"
    (folder / "photos").mkdir(parents=True)
    (folder / "names.txt").touch()
    step = folder / "runs/x/checkpoints/step-00000001"
    step.mkdir(parents=True)
    monkeypatch.chdir(folder)
    config = Config(data_dir="photos", model_dir="runs/x", label_file="names.txt", cache_dir="/tmp")
    for place in (step, folder / "runs/x"):
        (place / "config.yaml").write_text(config.to_yaml())
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize("within", ["runs/x", "runs/x/checkpoints/step-00000001"])
def test_relative_paths_are_resolved_from_where_the_run_was_started(project, within):
    config, words = load_run_config(project / within / "config.yaml")
    assert config.data_dir == str(project / "photos")
    assert config.label_file == str(project / "names.txt")
    assert (config.cache_dir, config.log_filename) == ("/tmp", "log.json")
    assert words == f"from {project / within / 'config.yaml'}, made in {project}"


def test_the_config_file_keeps_relative_paths_and_records_the_folder(project):
    config = load_config(project / "runs/x/config.yaml")
    assert (config.data_dir, config.model_dir) == ("photos", "runs/x")
    assert yaml.safe_load((project / "runs/x/config.yaml").read_text())["made_in"] == str(project)


def test_relative_paths_follow_a_project_that_was_moved(project, tmp_path):
    shutil.move(project, tmp_path / "elsewhere")
    place = tmp_path / "elsewhere"
    assert load_run_config(place / "runs/x/config.yaml")[0].data_dir == str(place / "photos")


def test_without_a_recorded_folder_paths_are_inferred_from_model_dir(project):
    file = project / "runs/x/config.yaml"
    file.write_text("data_dir: photos\nmodel_dir: runs/x\n")
    config, words = load_run_config(file)
    assert (config.data_dir, words) == (str(project / "photos"), f"from {file}")
    file.write_text("data_dir: photos\nmodel_dir: ../x\n")
    assert load_run_config(file)[0].data_dir == "photos"


def test_a_path_that_no_longer_exists_stays_as_written(project):
    shutil.rmtree(project / "photos")
    assert load_run_config(project / "runs/x/config.yaml")[0].data_dir == "photos"


def test_resuming_from_another_folder_continues_the_run_of_the_config_file(project):
    """It used to start a new run in a folder of the same name below the current one."""
    flags = {"config": str(project / "runs/x/config.yaml"), "mode": "summary"}
    config = configure(**flags, resume_checkpoint=True)
    assert config.model_dir == str(project / "runs/x")
    assert config.data_dir == str(project / "photos")
    assert configure(**flags, resume_checkpoint=True, model_dir="other").model_dir == "other"
    assert configure(**flags).model_dir == "runs/x", "without --resume_checkpoint it is a new run"


def test_in_the_folder_of_the_start_relative_paths_stay_relative(project, monkeypatch):
    monkeypatch.chdir(project)
    config = configure("runs/x/config.yaml", mode="summary", resume_checkpoint=True)
    assert (config.model_dir, config.data_dir) == ("runs/x", "photos")


def test_a_moved_run_resumes_in_its_new_folder(project):
    shutil.move(project / "runs/x", project / "moved")
    file = str(project / "moved/config.yaml")
    config = configure(file, mode="summary", resume_checkpoint=True)
    assert config.model_dir == str(project / "moved")
    assert config.data_dir == str(project / "photos")
