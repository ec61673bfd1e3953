"""`config.yaml`: the order of its settings, and reading files of this and older versions."""

from dataclasses import asdict, fields

import pytest
import yaml

from convoy.runtime.command_line.cli import parse
from convoy.runtime.settings.config import MADE_IN, Config, defaults, load_config

NASTY = ("a\nb: ü", "x\x85y\u2028z", "a: b # c", "- x", "null", "off", "2023-01-01",
         " lead", "'", "")  # fmt: skip


def parts(text):
    """Returns the settings above the "Defaults" line, and those below it."""
    first, rest = text.split("==== Defaults ====")
    return yaml.safe_load(first), yaml.safe_load(rest)


def set_in(text):
    """Returns the lines that are neither empty nor comments."""
    return [line for line in text.split("\n") if line and not line.startswith("#")]


def test_settings_that_differ_from_the_defaults_come_first():
    config = Config(**defaults("resnet50") | {"max_epochs": 3, "runs": ["a", "b"]})
    first, rest = parts(config.to_yaml())
    first.pop(MADE_IN)
    assert first == {"max_epochs": 3, "arch": "resnet50", "runs": ["a", "b"]}
    assert first | rest == asdict(config)


def test_the_architecture_is_above_the_defaults_even_if_it_is_the_default():
    assert "arch" in parts(Config().to_yaml())[0]


def test_each_setting_has_its_own_line_below_its_group_heading():
    lines = Config(runs=["a", "b" * 200], lr_boundaries=[1.0, "10%"]).to_yaml().split("\n")
    for f in fields(Config):
        place = [i for i, line in enumerate(lines) if line.startswith(f"{f.name}:")]
        assert len(place) == 1
        above = [line for line in lines[: place[0]] if line.startswith("# ")]
        assert above[-1] == f"# {f.metadata['group']}"


@pytest.mark.parametrize("text", NASTY, ids=repr)
def test_special_characters_in_a_text_setting_survive_writing_and_reading(text, tmp_path):
    config = Config(tracker_project=text, trackers=text)
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml(), encoding="ascii")
    assert asdict(load_config(path)) == asdict(config)
    assert len(set_in(config.to_yaml())) == len(fields(Config)) + 1  # and MADE_IN


def test_a_config_file_of_version_0_1_can_be_read(tmp_path):
    """These files have all settings in one block, with several settings on a line."""
    config = Config(**defaults("resnet18") | {"max_epochs": 7, "run_name": "a: b"})
    values = asdict(config) | {MADE_IN: "/home/ada"}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False, default_flow_style=None))
    assert "{mode: train_and_eval, recipe: null" in path.read_text()
    assert load_config(path) == config
    assert parse(["summary", "--config", str(path)]) == config.with_(mode="summary")
