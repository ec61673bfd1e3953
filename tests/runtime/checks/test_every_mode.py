"""Flags that are refused before anything is loaded, with the reason."""

import pytest

from convoy.runtime.command_line.cli import parse
from convoy.runtime.settings.config import Config, load_config
from convoy.runtime.settings.input_backend import backend, check_backend
from convoy.runtime.settings.lr_schedule import build_schedule, schedule_arguments
from convoy.runtime.settings.model_checks import ACTIVATIONS
from convoy.utils.errors import ConfigError
from convoy.utils.optim.lr_scaling_and_decay import make_schedule
from tests.runtime.summary_settings import settings

BAD_VALUES = [
    *[[f"--{name}", "0"] for name in ("max_epochs", "run_epochs", "steps_per_epoch", "prof")],
    *[[f"--{name}", "0"] for name in ("train_batch_size", "eval_batch_size", "log_steps")],
    *[[f"--{name}", "-1"] for name in ("num_workers", "save_checkpoint_freq", "top_k")],
    *[[f"--{name}", "-2"] for name in ("num_epochs_between_eval", "optimizer_batch_size")],
    *[[f"--{name}", "0"] for name in ("intraop_threads", "interop_threads", "num_layers")],
    *[
        [f"--{name}", "5000000000"]
        for name in ("intraop_threads", "interop_threads", "num_workers")
    ],
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
    ["--color_jitter=1e39"],
    ["--randaugment_space", "tim"],
    ["--random_erasing_mode", "fog"],
    ["--n_stages", "4", "--max_epochs", "3"],
    ["--base_img_size", "64", "--n_stages", "2", "--image_size", "32"],
    ["--base_img_size", "2", "--n_stages", "2"],
    ["--base_img_size", "32", "--n_stages", "2", "--image_size", "32"],
    ["--base_dropout", "0.1", "--n_stages", "2", "--dropout", "0", "--base_img_size", "16"],
    ["--loss_scale", "huge"],
    ["--loss_scale", "0"],
    ["--loss_scale", "nan"],
    ["--loss_scale", "inf"],
    ["--loss_scale", "33554432"],
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
def test_a_bad_value_is_refused_with_the_name_of_its_flag(refused, args):
    assert args[0].split("=")[0] in refused("--arch", "efficientnet-test", *args)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("flag", ["--lr_init", "--dropout", "--warmup_epochs", "--weight_decay"])
def test_nan_and_infinity_are_refused(refused, flag, value):
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


@pytest.mark.parametrize(
    ("recipe", "args", "warmup", "told"),
    [
        ("", ["--max_epochs", "3"], 0.6, True),
        ("", ["--max_epochs", "5", "--steps_per_epoch", "10"], 1, True),
        ("", ["--max_epochs", "1", "--steps_per_epoch", "10"], 0.2, True),
        ("", ["--max_epochs", "6"], 5, False),
        ("warmup_epochs: 7\nmax_epochs: 40\n", ["--max_epochs", "3"], 0.6, True),
        ("warmup_epochs: 50%\n", ["--max_epochs", "3"], "50%", False),
        ("warmup_epochs: 7\n", ["--max_epochs", "3"], 0.6, True),
        ("max_epochs: 3\n", [], 0.6, True),
        ("max_epochs: 3\nwarmup_epochs: 3\n", [], None, False),
        ("max_epochs: 3\n", ["--warmup_epochs", "3"], None, False),
        ("", ["--max_epochs", "3", "--warmup_epochs", "5"], None, False),
    ],
)
def test_a_default_warm_up_is_shortened_for_a_short_run(
    refused, folders, tmp_path, capsys, recipe, args, warmup, told
):
    (tmp_path / "recipe.yaml").write_text(recipe)
    common = ["--data_dir", str(folders), "--model_dir", str(tmp_path / "run")]
    common += ["--config", str(tmp_path / "recipe.yaml"), "--defaults", "documents", *args]
    if warmup is None:
        message = refused(*common)
        assert "does not end before the run does, after 3 epochs" in message
        return
    config = parse(common)
    assert config.warmup_epochs == warmup
    said = " ".join(capsys.readouterr().err.split())
    length = "1 epoch" if config.max_epochs == 1 else f"{config.max_epochs} epochs"
    takes = "1 epoch" if warmup == 1 else f"{warmup} epochs"
    assert (f"fit into {length}: shortened to {takes} (--warmup_epochs)" in said) is told
    build_schedule(config, images_per_step=32, steps_per_epoch=2)


def test_only_local_rank_0_reports_chosen_settings(folders, tmp_path, monkeypatch, capsys):
    args = ["--data_dir", str(folders), "--model_dir", str(tmp_path), "--max_epochs", "3"]
    monkeypatch.setenv("HOROVOD_SIZE", "2")
    for rank, flags, told in (("0", [], 1), ("1", [], 0), ("0", ["--nproc", "2"], 0)):
        monkeypatch.setenv("HOROVOD_LOCAL_RANK", rank)
        parse([*args, *flags])
        assert capsys.readouterr().err.count("chosen for these data") == told
        parse([*args, *flags, "--defaults", "documents"])
        assert capsys.readouterr().err.count("warm-up of 5 epochs") == told


def test_an_error_names_the_source_of_a_value_that_no_flag_gave(refused, tmp_path):
    (tmp_path / "recipe.yaml").write_text(f"data_dir: {tmp_path}/nowhere\n")
    message = refused("--config", tmp_path / "recipe.yaml")
    assert f"nowhere is from {tmp_path}/recipe.yaml)" in message
    assert "(--data_dir /data/ is the default" in refused("--model_dir", tmp_path)
    assert "is from" not in refused("--data_dir", tmp_path / "nowhere")


def test_the_step_schedule_multiplies_by_lr_decay_rate_at_its_boundaries(folders, tmp_path):
    common = ["--data_dir", str(folders), "--model_dir", str(tmp_path), "--lr_decay", "step"]
    common += ["--arch", "efficientnet-test", "--lr_decay_rate", "0.5", "--warmup_epochs", "0"]
    for args, boundaries in ((["--lr_boundaries=[2,4]"], [2, 4]), ([], [3, 6, 8])):
        config = parse([*common, "--max_epochs", "9", *args])
        rate = make_schedule(**schedule_arguments(config), base_lr=1.0, steps_per_epoch=10)
        for i, boundary in enumerate(boundaries):
            assert rate(10 * boundary - 1) == pytest.approx(0.5**i)
            assert rate(10 * boundary) == pytest.approx(0.5 ** (i + 1))


def test_a_length_of_time_can_be_given_in_epochs_steps_or_percent(tmp_path, refused, folders):
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


def test_a_warm_up_longer_than_the_data_allow_is_refused_before_training(folders, tmp_path):
    args = ("--data_dir", str(folders), "--model_dir", str(tmp_path), "--max_epochs", "2")
    args += ("--defaults", "documents")
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
def test_dali_flags_are_refused_if_dali_is_not_installed(refused, monkeypatch, args):
    monkeypatch.setattr("convoy.runtime.settings.input_backend._installed", lambda module: False)
    message = refused(*args)
    assert " ".join(args) in message
    assert "[dali]" in message


def test_dali_gpu_is_refused_without_a_gpu(refused, monkeypatch):
    monkeypatch.setattr("convoy.runtime.settings.input_backend._installed", lambda module: True)
    message = refused("--data_backend", "dali-gpu")
    assert "GPU" in message
    assert "--data_backend dali-cpu" in message


@pytest.mark.parametrize(
    ("packages", "cuda", "says"),
    [
        (["nvidia-dali-cuda120", "nvidia-dali-cuda130"], (13, 0), "have files of the same names"),
        (["nvidia-dali-cuda130"], (12, 4), "needs a driver for CUDA 13 (580 or newer), and this"),
    ],
)
def test_a_dali_for_another_cuda_is_refused(refused, monkeypatch, packages, cuda, says):
    backend = "convoy.runtime.settings.input_backend."
    monkeypatch.setattr(f"{backend}_installed", lambda module: True)
    monkeypatch.setattr(f"{backend}visible_gpus", lambda: 1)
    monkeypatch.setattr(f"{backend}driver_cuda", lambda: cuda)
    monkeypatch.setattr(f"{backend}installed_of", lambda *names: packages)
    message = refused("--data_backend", "dali-gpu")
    assert says in message
    assert f"pip uninstall {' '.join(packages)}, then " in message
    assert "[dali]" in message


@pytest.mark.parametrize(
    ("packages", "cuda"), [(["nvidia-dali-cuda120"], (13, 0)), (["nvidia-dali-cuda130"], (13, 1))]
)
def test_a_dali_for_the_drivers_cuda_or_an_older_one_is_taken(monkeypatch, packages, cuda):
    backend = "convoy.runtime.settings.input_backend."
    monkeypatch.setattr(f"{backend}_installed", lambda module: True)
    monkeypatch.setattr(f"{backend}visible_gpus", lambda: 1)
    monkeypatch.setattr(f"{backend}driver_cuda", lambda: cuda)
    monkeypatch.setattr(f"{backend}installed_of", lambda *names: packages)
    check_backend(Config(mode="eval", data_backend="dali-gpu"))


def test_use_dali_is_refused_with_a_contradictory_data_backend(refused):
    for flag in ("--use_dali", "--use_dali_eval"):
        message = refused(flag, "--data_backend", "tfdata")
        assert "disagree" in message
        assert flag in message


@pytest.mark.parametrize("gpus", [0, 1])
def test_use_dali_selects_the_split_and_the_available_device(monkeypatch, gpus):
    monkeypatch.setattr("convoy.runtime.settings.input_backend.visible_gpus", lambda: gpus)
    dali = "dali-gpu" if gpus else "dali-cpu"
    for config, train, evaluation in (
        (Config(), "tfdata", "tfdata"),
        (Config(use_dali=True), dali, "tfdata"),
        (Config(use_dali_eval=True), "tfdata", dali),
        (Config(use_dali=True, data_backend="dali-cpu"), "dali-cpu", "dali-cpu"),
    ):
        found = [backend(config, training=training) for training in (True, False)]
        assert found == [train, evaluation]


def test_synthetic_data_is_refused_outside_benchmarks(refused):
    assert "--data_backend synthetic" in refused("--data_backend", "synthetic")
    config = parse(["--mode", "training_benchmark", "--data_backend", "synthetic"])
    assert config.data_backend == "synthetic"


def test_a_data_dir_without_data_is_refused(refused, tmp_path):
    assert "--data_dir" in refused("--data_dir", tmp_path / "nowhere")
    assert "is empty" in refused("--data_dir", tmp_path)
    (tmp_path / "readme.txt").write_text("no records here")
    message = refused("--data_dir", tmp_path)
    assert "no data for the train split" in message
    assert "readme.txt" in message


@pytest.mark.parametrize("mode", ["eval", "predict", "prediction"])
def test_eval_and_predict_without_a_checkpoint_are_refused(refused, folders, tmp_path, mode):
    args = ("--mode", mode, "--data_dir", folders, "--predict_dir", folders)
    assert "--model_dir" in refused(*args, "--model_dir", tmp_path)
    message = refused(*args, "--model_dir", tmp_path, "--checkpoint", tmp_path / "x")
    assert "--checkpoint" in message
    assert "does not exist" in message


def test_flags_without_effect_are_refused(refused, folders, tmp_path):
    common = ("--data_dir", folders, "--model_dir", tmp_path, "--arch", "efficientnet-test")
    for args, meant in (
        (("--freeze_backbone", "--layer_decay", "0.9"), "--layer_decay has no effect"),
        (("--bce_target_threshold", "0.1"), "without --loss bce"),
        (("--adasum", "--gradient_predivide_factor", "2"), "has no effect with --adasum"),
        (("--nesterov", "--optimizer", "adam"), "--nesterov has no effect with --optimizer adam"),
        (("--activation", "swosh"), "--activation takes one of Keras' names, not swosh: did you"),
        (("--nan_rollback", "1", "--no_checkpoints"), "leave out --no_checkpoints"),
    ):
        assert meant in refused(*common, "--warmup_epochs", "0", *args)


def test_the_list_of_activations_equals_keras():
    from keras.src import activations

    assert all(activations.get(name) for name in ACTIVATIONS)
    assert {function.__name__ for function in activations.ALL_OBJECTS} <= {*ACTIVATIONS}


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--cutout_const", "-5", "must not be negative"),
        ("--translate_const", "-3", "must not be negative"),
        ("--translate_const", "1e300", "must be at most 1e+38"),
        ("--magnitude", "1e300", "must be at most 1e+38"),
        ("--crop_padding", str(2**64 - 1), "must be at most 2,147,483,647"),
        ("--eval_batch_size", str(2**64 - 1), "must be at most"),
        ("--steps_per_epoch", str(2**64 - 1), "must be at most"),
        ("--max_epochs", str(2**64 - 1), "must be at most"),
        ("--num_classes", str(2**31), "must be at most"),
    ],
)
def test_numbers_that_tensorflow_cannot_hold_are_refused(refused, tiny, flag, value, words):
    message = refused("--mode", "train", "--data_dir", tiny, flag, value)
    assert f"{flag} {words}" in message
