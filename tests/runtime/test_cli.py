"""The command line: defaults, spellings, precedence, errors. No TensorFlow anywhere in it."""

from dataclasses import asdict, fields
from pathlib import Path

import pytest

from runtime.backends import backend
from runtime.cli import build_parser, parse
from runtime.config import LATER_MODES, MODES, Config, ConfigError, defaults, load_config
from runtime.recipes import read_recipe
from runtime.schedules import build_schedule, schedule_arguments
from utils.schedules import make_schedule

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(p for p in (ROOT / "configs").glob("**/*.yaml") if p.name != "launch.yaml")


def settings(*args):
    """The config of a mode that needs neither data nor a checkpoint."""
    return parse(["--mode", "summary", *args])


@pytest.fixture
def refused(capsys):
    """Runs the parser on arguments that it must refuse, and returns its message as one line."""

    def run(*args):
        with pytest.raises(SystemExit) as exit_:
            parse([str(arg) for arg in args])
        assert exit_.value.code == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("convoy: ")
        assert "Traceback" not in err
        return " ".join(err.split())

    return run


def test_defaults_are_those_of_the_efficientnet_document():
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
        "activation": None,  # the family's: swish
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


def test_a_resnet_takes_its_own_documents_defaults():
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


def test_every_flag_has_a_group_and_help(capsys):
    for f in fields(Config):
        assert f.metadata["group"], f.name
        assert len(f.metadata["help"]) >= 5, f.name
    with pytest.raises(SystemExit) as exit_:
        parse(["--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    for f in fields(Config):
        for name in (f.name, *f.metadata["aliases"]):
            assert f"--{name}" in text


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


def test_a_switch_takes_no_other_word(refused):
    assert "--use_xla" in refused("--mode", "summary", "--use_xla=perhaps")


def test_flags_are_not_abbreviated(refused):
    message = refused("--mode", "summary", "--max_epoch", "3")
    assert "there is no flag --max_epoch; did you mean --max_epochs?" in message


def test_older_names_of_flags_are_understood():
    assert settings("--lr_warmup_epochs", "3").warmup_epochs == 3
    assert settings("--drop_connect_rate", "0.3").stochastic_depth == 0.3
    assert settings("--to_predict", "x").predict_dir == "x"
    assert settings("--inference_checkpoint", "last").checkpoint == "last"


@pytest.mark.parametrize(
    ("args", "answer"),
    [
        (["--lr_int", "1"], "there is no flag --lr_int; did you mean --lr_init?"),
        (["--use_xlaa"], "there is no flag --use_xlaa; did you mean --use_xla?"),
        (["--qqqqqqqq"], "there is no flag --qqqqqqqq; --help lists all"),
        (["--mode", "evl"], "--mode evl does not exist; did you mean eval?"),
        (["--mode", "qqqqqqqq"], "choose from train_and_eval"),
        (["--mode", "summary", "--arch", "efficientnet_b0"], "Did you mean efficientnet-b0"),
        (["--mode", "summary", "--arch", "resnet5"], "resnet50"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(refused, args, answer):
    assert answer in refused(*args)


def test_an_unknown_key_of_a_recipe_is_answered_with_the_nearest(refused, tmp_path):
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


def test_a_missing_recipe_is_named(refused, tmp_path):
    assert "nowhere.yaml" in refused("--config", tmp_path / "nowhere.yaml")


def test_a_recipe_overrides_defaults_and_flags_override_the_recipe(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("max_epochs: 7\nlr_init: 0.5\noptimizer: adam\n")
    config = settings("--config", str(recipe), "--lr_init", "0.25")
    assert (config.max_epochs, config.lr_init, config.optimizer) == (7, 0.25, "adam")
    before = settings("--lr_init", "0.25", "--config", str(recipe))
    assert before.max_epochs == 7


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
def test_the_resolved_config_can_be_fed_back(tmp_path, args):
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
        from runtime.cli import _mode

        assert _mode(written) == meant


@pytest.mark.parametrize("mode", sorted(LATER_MODES))
def test_modes_of_later_work_say_so(refused, mode):
    assert f"--mode {mode} is not built yet" in refused("--mode", mode)


def test_all_modes_are_listed_in_help():
    text = build_parser().format_help()
    assert all(mode in text for mode in MODES)


BAD_VALUES = [
    *[[f"--{name}", "0"] for name in ("max_epochs", "run_epochs", "steps_per_epoch", "prof")],
    *[[f"--{name}", "0"] for name in ("train_batch_size", "eval_batch_size", "log_steps")],
    *[[f"--{name}", "-1"] for name in ("num_workers", "save_checkpoint_freq", "top_k")],
    *[[f"--{name}", "-2"] for name in ("num_epochs_between_eval", "optimizer_batch_size")],
    *[[f"--{name}", "0"] for name in ("intraop_threads", "interop_threads", "num_layers")],
    ["--num_classes", "1"],
    *[[f"--{name}", "1"] for name in ("dropout", "stochastic_depth", "label_smoothing")],
    *[[f"--{name}", "-0.1"] for name in ("moving_average_decay", "momentum", "decay")],
    *[[f"--{name}", "1.5"] for name in ("beta_1", "beta_2", "bn_momentum", "hflip")],
    *[[f"--{name}", "-1"] for name in ("lr_init", "weight_decay", "warmup_epochs", "lr_end")],
    *[[f"--{name}", "-1"] for name in ("mixup_alpha", "cutmix_alpha", "max_bad_examples")],
    *[[f"--{name}", "0"] for name in ("epsilon", "lr_decay_epochs", "lr_decay_rate")],
    ["--bn_epsilon", "0"],
    ["--crop_area_min", "0"],
    ["--crop_area_max", "1.5"],
    ["--crop_ratio_min", "0"],
    ["--autoaugmentation_name", "v9"],
    ["--autoaugmentation_name", "imagenet"],
    *[[f"--{name}", "1.5"] for name in ("random_erasing", "mix_prob", "mix_switch_prob")],
    *[[f"--{name}", "-1"] for name in ("magnitude_std", "base_randaug_mag", "base_mixup")],
    *[[f"--{name}", "0"] for name in ("n_stages", "mix_off_epoch")],
    ["--base_dropout", "1"],
    ["--train_image_size", "2"],
    ["--color_jitter=[1,1,1,1,1]"],
    ["--color_jitter=[0,0,0,0.7]"],
    ["--randaugment_space", "tim"],
    ["--random_erasing_mode", "fog"],
    ["--n_stages", "4", "--max_epochs", "3"],
    ["--base_img_size", "64", "--n_stages", "2", "--image_size", "32"],
    ["--base_img_size", "2", "--n_stages", "2"],
    ["--base_dropout", "0.1", "--n_stages", "2", "--dropout", "0", "--base_img_size", "16"],
    ["--loss_scale", "huge"],
    ["--loss_scale", "0"],
    ["--image_size", "3"],
    ["--image_size", "many"],
    ["--max_epochs", "1.5"],
    ["--warmup_epochs", "5 minutes"],
    ["--lr_decay_epochs", "0steps"],
    ["--lr_boundaries=[1,soon]"],
    ["--layer_decay", "0"],
    ["--layer_decay", "1.1"],
    ["--optimizer", "lion"],
    ["--lr_decay", "sawtooth"],
    ["--weight_decay_style", "l3"],
    ["--dtype", "float8"],
    ["--augmenter_name", "fog"],
    ["--data_backend", "carrier-pigeon"],
    ["--dataset", "CIFAR"],
    ["--weights", "best"],
]


@pytest.mark.parametrize("args", BAD_VALUES, ids="=".join)
def test_a_bad_value_is_refused_by_the_name_of_its_flag(refused, args):
    assert args[0].split("=")[0] in refused("--arch", "efficientnet-test", *args)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("flag", ["--lr_init", "--dropout", "--warmup_epochs", "--weight_decay"])
def test_numbers_are_finite(refused, flag, value):
    assert flag in refused("--arch", "efficientnet-test", f"{flag}={value}")


def test_impossible_schedules_are_refused(refused, folders, tmp_path):
    common = ("--data_dir", folders, "--model_dir", tmp_path, "--arch", "efficientnet-test")
    message = refused(*common, "--max_epochs", "3", "--warmup_epochs", "5")
    assert "warmup" in message
    message = refused(*common, "--lr_decay", "piecewise", "--lr_boundaries=[30,60]")
    assert "multipliers" in message
    message = refused(
        *(*common, "--lr_decay", "piecewise", "--lr_boundaries=[60,30]"),
        "--lr_multipliers=[1,0.1,0.01]",
    )
    assert "boundaries" in message


def test_the_step_schedule_falls_by_its_rate_at_its_boundaries(folders, tmp_path):
    common = ["--data_dir", str(folders), "--model_dir", str(tmp_path), "--lr_decay", "step"]
    common += ["--arch", "efficientnet-test", "--lr_decay_rate", "0.5", "--warmup_epochs", "0"]
    for args, boundaries in ((["--lr_boundaries=[2,4]"], [2, 4]), ([], [3, 6, 8])):
        config = parse([*common, "--max_epochs", "9", *args])
        rate = make_schedule(**schedule_arguments(config), base_lr=1.0, steps_per_epoch=10)
        for i, boundary in enumerate(boundaries):
            assert rate(10 * boundary - 1) == pytest.approx(0.5**i)
            assert rate(10 * boundary) == pytest.approx(0.5 ** (i + 1))


def test_spans_are_epochs_steps_or_percent_from_flags_and_yaml(tmp_path, refused, folders):
    assert settings("--warmup_epochs", "5").warmup_epochs == 5
    assert settings("--lr_warmup_epochs", "500steps").warmup_epochs == "500steps"
    asked = ("--lr_decay_epochs", "1.5%", "--lr_boundaries=[7, 90 steps, 50%]")
    config = settings(*asked)
    assert config.lr_decay_epochs == "1.5%"
    assert config.lr_boundaries == [7, "90 steps", "50%"]
    (tmp_path / "run.yaml").write_text(config.to_yaml())
    assert load_config(tmp_path / "run.yaml") == config
    (tmp_path / "mine.yaml").write_text("warmup_epochs: 10%\nlr_boundaries: [1, 20 steps]\n")
    config = settings("--config", str(tmp_path / "mine.yaml"))
    assert (config.warmup_epochs, config.lr_boundaries) == ("10%", [1, "20 steps"])
    common = ("--data_dir", folders, "--model_dir", tmp_path, "--arch", "efficientnet-test")
    assert "does not end" in refused(*common, "--warmup_epochs", "100%")
    message = refused(
        *(*common, "--steps_per_epoch", "20", "--max_epochs", "2", "--warmup_epochs", "50steps")
    )
    assert "--warmup_epochs 50steps does not end before the run does, after 40 steps" in message


def test_what_only_the_data_can_refuse_is_refused_before_training(folders, tmp_path):
    args = ("--data_dir", str(folders), "--model_dir", str(tmp_path), "--max_epochs", "2")
    config = parse([*args, "--warmup_epochs", "30 steps", "--lr_decay", "cosine"])
    built = build_schedule(config, images_per_step=32, steps_per_epoch=20)
    assert built.warmup_steps == 30
    assert built.rate(29) == built.peak == 0.002  # 0.008 for 128 images
    assert built.rate(40) == pytest.approx(0)
    with pytest.raises(ConfigError, match=r"--warmup_epochs 30 steps .* has 15 steps"):
        build_schedule(config, images_per_step=32, steps_per_epoch=15)


@pytest.mark.parametrize(
    "args", [["--use_dali"], ["--use_dali_eval"], ["--data_backend", "dali-cpu"]]
)
def test_dali_must_be_installed(refused, monkeypatch, args):
    monkeypatch.setattr("runtime.backends._installed", lambda module: False)
    message = refused(*args)
    assert " ".join(args) in message
    assert "[dali]" in message


def test_dali_on_a_gpu_needs_one(refused, monkeypatch):
    monkeypatch.setattr("runtime.backends._installed", lambda module: True)
    message = refused("--data_backend", "dali-gpu")
    assert "GPU" in message
    assert "--data_backend dali-cpu" in message


def test_the_older_flags_of_dali_and_the_backend_must_agree(refused):
    for flag in ("--use_dali", "--use_dali_eval"):
        message = refused(flag, "--data_backend", "tfdata")
        assert "disagree" in message
        assert flag in message


@pytest.mark.parametrize("gpus", [0, 1])
def test_the_older_flags_of_dali_choose_a_split_and_a_device(monkeypatch, gpus):
    monkeypatch.setattr("runtime.backends.visible_gpus", lambda: gpus)
    dali = "dali-gpu" if gpus else "dali-cpu"
    for config, train, evaluation in (
        (Config(), "tfdata", "tfdata"),
        (Config(use_dali=True), dali, "tfdata"),
        (Config(use_dali_eval=True), "tfdata", dali),
        (Config(use_dali=True, data_backend="dali-cpu"), "dali-cpu", "dali-cpu"),
    ):
        found = [backend(config, training=training) for training in (True, False)]
        assert found == [train, evaluation]


def test_synthetic_data_is_for_benchmarks(refused):
    assert "--data_backend synthetic" in refused("--data_backend", "synthetic")
    config = parse(["--mode", "training_benchmark", "--data_backend", "synthetic"])
    assert config.data_backend == "synthetic"


def test_data_that_is_not_there_is_refused(refused, tmp_path):
    assert "--data_dir" in refused("--data_dir", tmp_path / "nowhere")
    assert "is empty" in refused("--data_dir", tmp_path)
    (tmp_path / "readme.txt").write_text("no records here")
    message = refused("--data_dir", tmp_path)
    assert "no data for the train split" in message
    assert "readme.txt" in message


@pytest.mark.parametrize("mode", ["eval", "predict", "prediction"])
def test_applying_a_model_needs_a_checkpoint(refused, folders, tmp_path, mode):
    args = ("--mode", mode, "--data_dir", folders, "--predict_dir", folders)
    assert "--model_dir" in refused(*args, "--model_dir", tmp_path)
    message = refused(*args, "--model_dir", tmp_path, "--checkpoint", tmp_path / "x")
    assert "--checkpoint" in message
    assert "does not exist" in message
