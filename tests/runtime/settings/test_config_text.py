"""`config.yaml` reads like a recipe, and `--config` and older versions' files go on being read."""

from dataclasses import asdict, fields

import pytest
import yaml

from convoy.runtime.command_line.cli import parse
from convoy.runtime.settings.config import MADE_IN, Config, defaults, load_config

NASTY = ("a\nb: ü", "x\x85y\u2028z", "a: b # c", "- x", "null", "off", "2023-01-01",
         " lead", "'", "")  # fmt: skip


def parts(text):
    """The settings above the line of the defaults, and those below."""
    first, rest = text.split("==== Defaults ====")
    return yaml.safe_load(first), yaml.safe_load(rest)


def set_in(text):
    """The lines that set something."""
    return [line for line in text.split("\n") if line and not line.startswith("#")]


def test_what_differs_from_the_defaults_comes_first():
    config = Config(**defaults("resnet50") | {"max_epochs": 3, "runs": ["a", "b"]})
    first, rest = parts(config.to_yaml())
    first.pop(MADE_IN)
    assert first == {"max_epochs": 3, "arch": "resnet50", "runs": ["a", "b"]}
    assert first | rest == asdict(config)


def test_the_architecture_is_always_among_the_first():
    assert "arch" in parts(Config().to_yaml())[0]


def test_each_setting_has_a_line_of_its_own_below_the_name_of_its_group():
    lines = Config(runs=["a", "b" * 200], lr_boundaries=[1.0, "10%"]).to_yaml().split("\n")
    for f in fields(Config):
        place = [i for i, line in enumerate(lines) if line.startswith(f"{f.name}:")]
        assert len(place) == 1
        above = [line for line in lines[: place[0]] if line.startswith("# ")]
        assert above[-1] == f"# {f.metadata['group']}"


@pytest.mark.parametrize("text", NASTY, ids=repr)
def test_any_text_is_read_back(text, tmp_path):
    config = Config(tracker_project=text, trackers=text)
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml(), encoding="ascii")
    assert asdict(load_config(path)) == asdict(config)
    assert len(set_in(config.to_yaml())) == len(fields(Config)) + 1  # and where it was made


def test_a_file_of_version_0_1_is_read_as_before(tmp_path):
    """They had all settings in one block, several in a line."""
    config = Config(**defaults("resnet18") | {"max_epochs": 7, "run_name": "a: b"})
    values = asdict(config) | {MADE_IN: "/home/ada"}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False, default_flow_style=None))
    assert "{mode: train_and_eval, recipe: null" in path.read_text()
    assert load_config(path) == config
    assert parse(["summary", "--config", str(path)]) == config.with_(mode="summary")
