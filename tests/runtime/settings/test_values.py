"""A value means the same on the command line, in YAML and from Python, and a message about a wrong
value says what the setting takes.
"""

from __future__ import annotations

import datetime
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from convoy.runtime import ConfigError, configure
from convoy.runtime.command_line.cli import parse
from convoy.runtime.settings.config import Config, kinds, load_config
from convoy.runtime.settings.values import Kind, ValueRefused
from convoy.utils.seeds import fold_seed

PATHS = [name for name, kind in kinds().items() if kind.path]


def from_yaml(tmp_path, text):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    return parse(["--mode", "env", "--config", str(recipe)])


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("run_name: 2024-01-01", "2024-01-01"),
        ("run_name: 1e3", "1e3"),
        ("run_name: 2023", "2023"),
        ("run_name: off", "off"),
        ("run_name: yes", "yes"),
        ("run_name: 12:30", "12:30"),
        ("run_name: null", None),
        ("run_name:", None),
        ("data_dir: 2023", "2023"),
        ("data_dir: 2024-01-01", "2024-01-01"),
        ("benchmark_xla: off", "off"),
        ("benchmark_xla: [off, on]", "off,on"),
        ("loss_scale: 128", "128"),
        ("report_image_sizes: [224, 288]", "224,288"),
        ("trackers: [wandb, mlflow]", "wandb,mlflow"),
        ("augmenter_name: null", "none"),
        ("lr_init: 1e-3", 0.001),
        ("max_epochs: 5.0", 5),
        ("max_epochs: 1e1", 10),
        ("seed: 010", 10),
        ("seed: 1_000", 1000),
        ("use_xla: 'on'", True),
        ("use_xla: off", False),
        ("lr_boundaries: 7", [7]),
        ("lr_boundaries: [1, 20 steps, 50%]", [1, "20 steps", "50%"]),
        ("color_jitter: 0.4", 0.4),
        ("color_jitter: [0.4, 0.4, 0.4, 0]", [0.4, 0.4, 0.4, 0]),
        ("lr_warmup_epochs: 3", 3),
    ],
)
def test_a_yaml_value_is_read_by_the_type_of_its_setting(tmp_path, line, value):
    name = {"lr_warmup_epochs": "warmup_epochs"}.get(line.split(":")[0], line.split(":")[0])
    assert getattr(from_yaml(tmp_path, line + "\n"), name) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_epochs: many", "recipe.yaml, line 1: max_epochs takes a whole number, not many"),
        ("max_epochs: 3.5", "takes a whole number, not 3.5"),
        ("max_epochs: true", "takes a whole number, not true"),
        ("image_size: 12:30", "takes a whole number, not 12:30"),
        ("seed: 0x10", "takes a whole number, not 0x10"),
        ("lr_init: .inf", "takes a number, not .inf"),
        ("use_xla: perhaps", "takes yes or no"),
        ("use_xla: null", "takes yes or no"),
        ("dtype: no", "takes one of float32, bfloat16"),
        ("optimizer: adm", "did you mean adam?"),
        ("model_dir: ~", "write a folder ~ in quotes"),
        ("model_dir: ''", "model_dir is empty"),
        ("run_name: [a]", "takes text, not ['a']: put it in quotes"),
        ("run_name: {a: 1}", "holds nested settings"),
        ("color_jitter: x", "takes a number, or comma-separated numbers, not x"),
        ("lr_boundaries: &a [*a]", "holds a list in a list"),
        ("a: &a [*a]", "line 1: a holds a list in a list"),
        ("lr: 0.1", "line 1: there is no setting lr; did you mean lr_init?"),
        ("epochs: 3", "there is no setting epochs; did you mean max_epochs?"),
        ("learning-rte: 3", "there is no setting learning-rte; did you mean lr_init?"),
        ("\n\nmax_epoch: 3", "line 3: there is no setting max_epoch; did you mean max_epochs?"),
        ("bogus: 3", "there is no setting bogus; --help=all lists all"),
        (
            "max_epochs: 3\nseed: 1\nmax_epochs: 4",
            "line 3: max_epochs is set twice, first in line 1",
        ),
        ("\tmax_epochs: 3", "with spaces, not with tabs"),
        ("3: 4", "a setting's name must be a word, not 3"),
        ("? [a]\n: 1", "a setting's name must be a word, not a list"),
        ("- a", "holds no settings"),
        ("text", "holds no settings"),
        ("a: b: c", "line 1 cannot be read as YAML"),
        ("a: 1\n---\nb: 2", "expected a single document"),
        ("run_name: !!python/object/apply:os.system [ls]", "has the tag !!python/object"),
        ("base: [a]", "base takes the path of another recipe"),
        ("base: ~nobody-here/x.yaml", "there is no user nobody-here"),
        ("#" * 2**20 + "\nseed: 1", "cannot be a file of settings"),
        ("a: " + "[" * 5000, "recipe.yaml"),
    ],
)
def test_an_unusable_recipe_is_refused_with_line_and_reason(refused, tmp_path, text, words):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text + "\n")
    assert words in refused("--mode", "env", "--config", recipe)


def test_yaml_aliases_that_expand_exponentially_are_refused(refused, tmp_path):
    lines = ["x0: &x0 [a, a, a, a, a, a, a, a, a, a]"]
    lines += [f"x{i}: &x{i} [" + ", ".join([f"*x{i - 1}"] * 10) + "]" for i in range(1, 12)]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("\n".join(lines))
    assert "holds a list in a list" in refused("--mode", "env", "--config", recipe)


def test_a_runs_config_is_read_by_the_same_rules_as_a_recipe(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("max_epochs: '7'\nrun_name: 2023\nmodel_dir: ~/x\n")
    config = load_config(path)
    assert (config.max_epochs, config.run_name) == (7, "2023")
    assert config.model_dir == str(Path.home() / "x")
    path.write_text("max_epochs: many\n")
    with pytest.raises(ConfigError, match=r"config.yaml, line 1: max_epochs takes a whole"):
        load_config(path)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--seed", "abc"], "--seed takes a whole number, not abc"),
        (["--max_epochs", "3.5"], "--max_epochs takes a whole number, not 3.5"),
        (["--use_xla", "maybe"], "--use_xla takes yes or no"),
        (["--padding", "x"], "--padding takes one of same, symmetric, not x"),
        (["--bce_target_threshold", "x"], "--bce_target_threshold takes a number, not x"),
        (["--prof", ""], "--prof takes a whole number, not an empty text"),
        (["--model_dir", ""], "--model_dir is empty"),
        (["--data_dir"], "--data_dir needs a value"),
        (["--seed", "9" * 30], "--seed takes a whole number of at most 64 bits"),
        (["--seed", "9" * 9999], "--seed takes a whole number"),
        (["--arch", "resnet5"], "--arch: Unknown architecture"),
        (["--arch", "resnet18", "--image_size", "3"], "--image_size: resnet18 needs"),
        (["--base_lr", "1"], "did you mean --lr_init?"),
        (["eval"], "eval is a mode: --mode eval"),
        (["--model_dir=~nobody-here/x"], "there is no user nobody-here here"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: No such file"),
        (["--config", "~nobody-here/x"], "--config ~nobody-here/x: there is no user"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_a_wrong_value_of_a_flag_is_refused_with_what_the_flag_takes(refused, args, words):
    message = refused("--mode", "summary", *args)
    assert words in message
    assert not any(word in message for word in ("<class", "Union", "Literal", "_boolean_type"))
    if "--arch" in args and "--image_size" not in args:
        assert "--image_size" not in message


def test_numbers_and_lists_have_the_same_spellings_as_in_yaml():
    assert parse(["--mode", "env", "--prof", "1e3"]).prof == 1000
    assert parse(["--mode", "env", "--prof", "null"]).prof is None
    assert parse(["--mode", "env", "--lr_boundaries=[7, 90 steps]"]).lr_boundaries == [
        7,
        "90 steps",
    ]
    assert parse(["--mode", "env", "--lr_boundaries", "7,9"]).lr_boundaries == [7, 9]


def test_capitals_in_an_architectures_name_do_not_matter():
    config = parse(["--mode", "summary", "--arch", "ResNet50"])
    assert (config.arch, config.optimizer) == ("resnet50", "momentum")
    assert configure(mode="summary", arch="EfficientNet-B3").arch == "efficientnet-b3"


def test_configure_takes_numpy_values_and_paths():
    config = configure(
        mode="env",
        max_epochs=np.int64(3),
        lr_init=np.float32(0.5),
        use_xla=np.True_,
        lr_boundaries=np.array([1, 2]),
        model_dir=Path("~/x"),
        run_name=2023,
    )
    assert (config.max_epochs, config.lr_init, config.use_xla) == (3, 0.5, True)
    assert (config.lr_boundaries, config.run_name) == ([1, 2], "2023")
    assert config.model_dir == str(Path.home() / "x")
    assert Kind("run_name", (str,))(datetime.date(2024, 1, 1)) == "2024-01-01"
    with pytest.raises(ValueRefused, match="put it in quotes"):
        Kind("run_name", (str,))(True)


@pytest.mark.parametrize("name", PATHS)
def test_a_tilde_means_the_home_folder_in_every_path(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("convoy.runtime.command_line.cli.validate", lambda config: config)
    home = str(tmp_path / "home/x")
    expected = [home] if name == "runs" else home
    value = ["~/x"] if name == "runs" else "~/x"
    assert getattr(parse(["--mode", "env", f"--{name}=~/x"]), name) == expected
    assert getattr(from_yaml(tmp_path, f"{name}: ~/x\n"), name) == expected
    assert getattr(configure(mode="env", **{name: value}), name) == expected


def test_a_tilde_is_expanded_in_each_of_a_list_of_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    kind = kinds()["report_checkpoints"]
    assert kind("last,~/a,b/~c") == "last,/home/ada/a,b/~c"


def test_every_flag_that_takes_a_path_is_declared_as_a_path():
    words = ("folder", " file", "place of")
    others = {"mode", "dataset", "max_bad_examples", "run_name", "profile_steps"}
    others |= {"keep_checkpoints", "keep_best", "tracker_project", "no_checkpoints", "overwrite"}
    for f in fields(Config):
        named = f.name.endswith(("_dir", "_file", "_filename")) or f.name.startswith("path")
        text = f.type in ("str", "str | None") and any(w in f.metadata["help"] for w in words)
        if (named or text) and f.name not in others:
            assert f.metadata["path"] or f.name in ("predict_formats", "weight_names"), f.name


@pytest.mark.parametrize("seed", [-1, 2**32, 20261130054730123, 2**64 - 1])
def test_any_64_bit_seed_is_accepted_and_folded(seed, tmp_path):
    config = parse(["--mode", "summary", f"--seed={seed}"])
    assert config.seed == fold_seed(seed) == configure(mode="summary", seed=seed).seed
    assert from_yaml(tmp_path, f"seed: {seed}\n").seed == config.seed


def test_print_config_prints_the_settings_and_exits_with_0(capsys):
    with pytest.raises(SystemExit) as exit_:
        parse(["--mode", "summary", "--arch", "resnet50", "--print_config"])
    assert exit_.value.code == 0
    assert "optimizer: momentum" in capsys.readouterr().out
