"""Recipe files: their heading, the published results that they quote, and their `base` files."""

from __future__ import annotations

import re

import pytest

from convoy.model.catalog import get_arch
from convoy.runtime.command_line.cli import parse
from convoy.runtime.settings.recipes import (
    CONFIGS,
    expected_top1,
    lookup,
    parse_name,
    read_recipe,
    table,
)
from convoy.utils.errors import ConfigError

MODELS = table()["models"]
LITERATURE = sorted(CONFIGS.glob("literature/*.yaml"))
FILES = sorted(set(CONFIGS.glob("*/*.yaml")) - set(LITERATURE))


def test_recipe_files_and_the_table_list_the_same_recipes():
    listed = [CONFIGS / file for entry in MODELS.values() for file in entry["recipes"].values()]
    assert sorted(listed) == FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_states_its_command_its_source_and_published_results(path):
    head = re.match(r"(#.*\n)+", path.read_text())[0]
    command = re.sub(r"\s*\\\n#\s*", " ", head)
    processes, name = re.search(r"-np (\d+) python main.py --recipe (\S+) ", command).groups()
    found = lookup(**parse_name(name) | {"gpus": int(processes)})
    assert found.recipe.path == path
    assert found.gpus == int(processes)
    assert "published for its own program; nobody has trained this recipe here" in head
    recipe = read_recipe(path)
    assert recipe.expected["source"]
    assert len(recipe.expected["short"]) <= 14  # a column of --mode list
    for result in recipe.expected["results"]:
        assert set(result) == {"with", "top1", "hours"}
        assert 65 < result["top1"] < 90
        assert result["hours"] is None or result["hours"] > 0


@pytest.mark.parametrize("path", LITERATURE, ids=lambda path: path.stem)
def test_a_literature_recipe_is_marked_and_lists_what_convoy_lacks(path):
    head = re.match(r"(#.*\n)+", path.read_text())[0]
    assert head.startswith("# LITERATURE: ")
    assert f"--config configs/literature/{path.name} " in head
    assert "# Missing here: " in head
    assert "published for its own program; nobody has trained this recipe here" in head
    expected = read_recipe(path).expected
    assert expected["source"]
    assert 75 < expected["results"][0]["top1"] < 82
    used = {file for entry in MODELS.values() for file in entry["recipes"].values()}
    assert f"literature/{path.name}" not in used  # --mode list shows NVIDIA's results instead


def test_expected_accuracies_equal_the_published_ones():
    # Sources: NVIDIA's two documents, timm's evaluation of the paper's weights, torchvision.
    assert expected_top1("efficientnet-b0") == (77.43, "NVIDIA, 500e")
    assert expected_top1("efficientnet-b4") == (82.69, "NVIDIA, 500e")
    assert expected_top1("resnet50") == (78.43, "NVIDIA, 250e")
    assert expected_top1("efficientnet-b7") == (84.42, "paper, 350e")
    assert expected_top1("resnet18") == (69.758, "torchvision V1")
    assert expected_top1("efficientnet-l2") is None
    shorter = read_recipe(CONFIGS / "resnet/resnet50_90e.yaml").expected["results"]
    assert [result["top1"] for result in shorter[:4]] == [77.12, 76.95, 76.88, 77.01]
    assert [result["hours"] for result in shorter[:4]] == [3, 5, 5, 12]


def test_every_model_in_the_table_can_be_built():
    assert all(get_arch(model).available for model in MODELS)


def test_bases_can_be_chained_but_not_circular(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.yaml").write_text("max_epochs: 1\nlr_init: 1.0\nexpected: {short: a}\n")
    (tmp_path / "sub/b.yaml").write_text("base: ../a.yaml\nlr_init: 2.0\n")
    (tmp_path / "c.yaml").write_text("base: sub/b.yaml\narch: resnet18\n")
    recipe = read_recipe(tmp_path / "c.yaml")
    assert recipe.settings == {"max_epochs": 1, "lr_init": 2.0, "arch": "resnet18"}
    assert recipe.expected == {}
    config = parse(["--mode", "summary", "--config", str(tmp_path / "c.yaml")])
    assert (config.max_epochs, config.lr_init, config.arch) == (1, 2.0, "resnet18")
    (tmp_path / "a.yaml").write_text("base: c.yaml\n")
    with pytest.raises(ConfigError, match="is its own base"):
        read_recipe(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: nowhere.yaml\n", "bad.yaml, line 1: base nowhere.yaml: there is no file"),
        ("a: [1", "cannot be read as YAML"),
        ("- 1\n", "holds no settings"),
    ],
)
def test_a_bad_recipe_file_is_refused_with_the_reason(text, message, tmp_path, refused):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_recipe(path)
    assert message in refused("--mode", "summary", "--config", path)
