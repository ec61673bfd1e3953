"""`configure` turns keyword arguments into the same `Config` as the command line makes of flags."""

from __future__ import annotations

from pathlib import Path

import pytest

from convoy.runtime import Config, ConfigError, configure
from convoy.runtime.command_line.cli import parse
from convoy.runtime.settings.recipes import read_recipe

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        ({"arch": "resnet50"}, ["--arch", "resnet50"]),
        ({"hflip": 0, "requeue": False}, ["--hflip", "0", "--no-requeue"]),
        (
            {"color_jitter": [0.4, 0.4, 0.4, 0], "lr_decay_epochs": "10%"},
            ["--color_jitter=[0.4,0.4,0.4,0]", "--lr_decay_epochs", "10%"],
        ),
        (
            {"recipe": "resnet50/AMP/A100/90E", "max_epochs": 30},
            ["--recipe", "resnet50/AMP/A100/90E", "--max_epochs", "30"],
        ),
        (
            {"config": ROOT / "configs/digits_b0.yaml", "lr_init": 0.5},
            ["--config", str(ROOT / "configs/digits_b0.yaml"), "--lr_init", "0.5"],
        ),
    ],
    ids=["family", "switches", "values", "recipe", "config"],
)
def test_keyword_arguments_give_the_same_config_as_flags(settings, flags, folders):
    assert configure(**settings, data_dir=folders) == parse([*flags, "--data_dir", str(folders)])


def test_a_pathlib_path_is_accepted_where_a_path_is_expected(folders):
    found = configure(data_dir=folders, model_dir=folders / "run")
    assert (found.data_dir, found.model_dir) == (str(folders), str(folders / "run"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lr_decoy": "cosine"}, "lr_decoy.*lr_decay"),
        ({"lr_decay": "cosin"}, "lr_decay"),
        ({"max_epochs": "many"}, "max_epochs"),
        ({"max_epochs": 0}, "max_epochs"),
        ({"data_dir": "nowhere"}, "data_dir"),
        ({"config": "nowhere.yaml"}, "nowhere.yaml"),
        ({"arch": "resnet51"}, "resnet50"),
    ],
)
def test_mistakes_raise_a_config_error_that_names_the_setting(settings, words, folders, capsys):
    with pytest.raises(ConfigError, match=words):
        configure(**({"data_dir": folders} | settings))
    assert not capsys.readouterr().err


def test_a_config_read_from_its_own_file_is_equal(folders, tmp_path):
    found = configure(data_dir=folders, arch="resnet18", max_epochs=3)
    path = tmp_path / "config.yaml"
    path.write_text(found.to_yaml())
    assert isinstance(found, Config)
    assert read_recipe(str(path)).settings["max_epochs"] == 3
    assert configure(config=path) == found
