"""The command line: defaults, spellings, precedence, errors. Needs no TensorFlow."""

from dataclasses import asdict
from pathlib import Path

import pytest

from convoy.runtime.command_line.cli import parse
from convoy.runtime.settings.config import Config, defaults, load_config
from convoy.runtime.settings.lr_schedule import schedule_arguments
from convoy.runtime.settings.recipes import read_recipe
from convoy.utils.errors import ConfigError
from convoy.utils.optim.lr_scaling_and_decay import make_schedule
from tests.runtime.summary_settings import settings

ROOT = Path(__file__).resolve().parents[3]
RECIPES = sorted(p for p in (ROOT / "configs").glob("**/*.yaml") if p.name != "launch.yaml")


def test_defaults_equal_nvidias_efficientnet_document():
    documented = {
        "mode": "train_and_eval",
        "arch": "efficientnet-b0",
        "max_epochs": 300,
        "num_epochs_between_eval": 1,
        "steps_per_epoch": None,
        "warmup_epochs": 5,
        "train_batch_size": 32,
        "eval_batch_size": 32,
        "optimizer": "rmsprop",
        "momentum": 0.9,
        "decay": 0.9,
        "epsilon": 0.001,
        "lr_init": 0.008,
        "lr_base_batch": 128,
        "lr_decay": "exponential",
        "lr_decay_rate": 0.97,
        "lr_decay_epochs": 2.4,
        "weight_decay": 5e-6,
        "weight_decay_style": "l2",
        "label_smoothing": 0.1,
        "moving_average_decay": 0.0,
        "augmenter_name": "autoaugment",
        "autoaugmentation_name": "v0",
        "weight_init": "fan_out",
        "activation": None,  # the family's default: swish
        "batch_norm": "default",
        "use_amp": False,
        "use_xla": False,
        "tf32": True,
        "save_checkpoint_freq": 1,
        "log_steps": 100,
        "log_filename": "log.json",
        "dataset": "ImageNet",
        "data_dir": "/data/",
        "seed": 0,
    }
    assert {name: getattr(Config(), name) for name in documented} == documented
    parsed = asdict(settings()) | {"mode": "train_and_eval"}
    assert parsed == asdict(Config())


def test_a_resnets_defaults_equal_nvidias_resnet_document():
    values = defaults("resnet50")
    assert values["optimizer"] == "momentum"
    assert values["lr_init"] == 0.1
    assert values["lr_decay"] == "step"
    rate = make_schedule(**schedule_arguments(Config(**values)), base_lr=1.0, steps_per_epoch=10)
    changes = [step for step in range(1, 900) if rate(step) != rate(step - 1)]
    assert changes == [300, 600, 800]
    assert values["train_batch_size"] == 256
    assert values["weight_decay"] == 1e-4
    assert values["label_smoothing"] == 0
    assert values["augmenter_name"] == "none"
    assert (values["crop_area_min"], values["eval_crop"]) == (0.08, "resize")
    assert values["max_epochs"] == 90
    assert values["arch"] == "resnet50"
    Config(**values)


@pytest.mark.parametrize(
    ("args", "value"),
    [
        (["--use_xla"], True),
        (["--no-use_xla"], False),
        (["--use_xla=true"], True),
        (["--use_xla=false"], False),
        (["--use_xla", "--no-use_xla"], False),
        ([], False),
    ],
)
def test_a_switch_can_be_turned_on_and_off(args, value):
    assert settings(*args).use_xla is value


def test_a_switch_that_is_on_by_default_can_be_turned_off():
    assert settings("--no-tf32").tf32 is False
    assert settings("--tf32=false").tf32 is False
    assert settings().tf32 is True


def test_a_recipe_can_set_a_switch(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("use_xla: true\ntf32: false\n")
    config = settings("--config", str(recipe))
    assert (config.use_xla, config.tf32) == (True, False)
    assert settings("--config", str(recipe), "--no-use_xla").use_xla is False


def test_a_switch_refuses_other_words_than_yes_and_no(refused):
    assert "--use_xla" in refused("--mode", "summary", "--use_xla=perhaps")


def test_abbreviated_flags_are_refused_with_a_suggestion(refused):
    message = refused("--mode", "summary", "--max_epoch", "3")
    assert "there is no flag --max_epoch; did you mean --max_epochs?" in message


def test_older_names_of_flags_still_work():
    assert settings("--lr_warmup_epochs", "3").warmup_epochs == 3
    assert settings("--drop_connect_rate", "0.3").stochastic_depth == 0.3
    assert settings("--to_predict", "x").predict_dir == "x"
    assert settings("--inference_checkpoint", "last").checkpoint == "last"


@pytest.mark.parametrize(
    ("args", "answer"),
    [
        (["--lr_int", "1"], "there is no flag --lr_int; did you mean --lr_init?"),
        (["--use_xlaa"], "there is no flag --use_xlaa; did you mean --use_xla?"),
        (["--qqqqqqqq"], "there is no flag --qqqqqqqq; --help=all lists all"),
        (["--mode", "evl"], "there is no mode evl; did you mean eval?"),
        (["--mode", "qqqqqqqq"], "choose from train_and_eval"),
        (["--mode", "summary", "--arch", "efficientnet_b0"], "Did you mean efficientnet-b0"),
        (["--mode", "summary", "--arch", "resnet5"], "resnet50"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(refused, args, answer):
    assert answer in refused(*args)


def test_an_xla_cache_on_an_object_store_is_refused(refused, folders):
    args = ("--data_dir", folders, "--use_xla", "--xla_cache", "gs://bucket/cache")
    assert "--xla_cache gs://bucket/cache is not a local path" in refused(*args)


def test_an_unknown_setting_in_a_recipe_is_refused_with_a_suggestion(refused, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("max_epoch: 3\n")
    message = refused("--mode", "summary", "--config", recipe)
    assert "max_epoch;" in message
    assert "did you mean max_epochs?" in message


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", "max_epochs: many\n"])
def test_a_recipe_that_cannot_be_used_is_refused(refused, tmp_path, text):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    refused("--mode", "summary", "--config", recipe)


def test_a_missing_config_file_is_refused_with_its_name(refused, tmp_path):
    assert "nowhere.yaml" in refused("--config", tmp_path / "nowhere.yaml")


def test_a_recipe_overrides_defaults_and_flags_override_the_recipe(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("max_epochs: 7\nlr_init: 0.5\noptimizer: adam\n")
    config = settings("--config", str(recipe), "--lr_init", "0.25")
    assert (config.max_epochs, config.lr_init, config.optimizer) == (7, 0.25, "adam")
    before = settings("--lr_init", "0.25", "--config", str(recipe))
    assert (before.max_epochs, before.lr_init) == (7, 0.25)


def test_a_recipes_architecture_brings_its_familys_defaults(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("arch: resnet50\nlr_init: 0.3\n")
    config = settings("--config", str(recipe), "--momentum", "0.8")
    assert (config.lr_init, config.momentum, config.optimizer) == (0.3, 0.8, "momentum")
    assert (config.max_epochs, config.optimizer) == (90, "momentum")


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--arch", "efficientnet-b3", "--epsilon", "1e-7", "--no-tf32", "--use_amp"],
        ["--lr_decay", "piecewise", "--lr_boundaries=[1,2.5]", "--lr_multipliers=[1,0.5,0.1]"],
        ["--loss_scale", "128", "--dtype", "fp16", "--output", "a b: c", "--dropout", "0"],
    ],
)
def test_a_written_config_gives_the_same_config_when_read(tmp_path, args):
    config = settings(*args)
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    assert parse(["--config", str(path)]) == config
    assert load_config(path) == config


def test_a_runs_config_with_an_unknown_setting_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("max_epochs: 3\nspeed: warp\n")
    with pytest.raises(ConfigError, match="speed"):
        load_config(path)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_parses(recipe, folders, tmp_path):
    args = ["--config", str(recipe), "--data_dir", str(folders), "--model_dir", str(tmp_path)]
    config = parse(args)
    settings = read_recipe(recipe).settings
    assert {name: getattr(config, name) for name in settings} == settings


def test_modes_have_older_names():
    for written, meant in (("prediction", "predict"), ("evaluate", "eval")):
        from convoy.runtime.command_line.sources import _mode

        assert _mode(written) == meant
