"""Recipes agree with their sources, and `--recipe` picks them by name. Needs no TensorFlow."""

from __future__ import annotations

import re
from dataclasses import fields
from itertools import product

import pytest
import yaml

from convoy.runtime.command_line.cli import parse
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.lr_schedule import schedule_arguments
from convoy.runtime.settings.recipes import (
    lookup,
    main,
    parse_name,
    table,
)
from convoy.utils.errors import ConfigError
from convoy.utils.optim.lr_scaling_and_decay import make_schedule, scaled_lr

MODELS, PLATFORMS = table()["models"], table()["platforms"]


def find(name):
    return lookup(**parse_name(name))


def peak_rate(found):
    """Returns the peak learning rate, as `runtime.train.trainer` computes it."""
    settings = found.recipe.settings | found.launch
    return scaled_lr(settings["lr_init"], found.images_per_update, settings["lr_base_batch"])


# From NVIDIA's scripts: model/precision/platform, images per GPU, epochs, peak learning rate.
EFFICIENTNET_SCRIPTS = [
    ("b0/AMP/A100-80G", 1024, 500, 0.32),
    ("b0/TF32/A100-80G", 512, 500, 0.16),
    ("b0/AMP/V100-16G", 256, 500, 0.08),
    ("b0/FP32/V100-16G", 128, 500, 0.04),
    ("b4/AMP/A100-80G", 160, 500, 0.05),
    ("b4/TF32/A100-80G", 80, 500, 0.025),
    ("b4/AMP/V100-32G", 64, 500, 0.02),
    ("b4/FP32/V100-32G", 32, 500, 0.01),
]


@pytest.mark.parametrize(("name", "batch", "epochs", "rate"), EFFICIENTNET_SCRIPTS)
def test_efficientnet_recipes_equal_nvidias_scripts(name, batch, epochs, rate):
    found = find(name)
    settings = found.recipe.settings | found.launch
    assert found.published
    assert settings["train_batch_size"] == settings["eval_batch_size"] == batch or "b4" in name
    assert (settings["train_batch_size"], settings["max_epochs"]) == (batch, epochs)
    assert settings["optimizer_batch_size"] is None
    assert peak_rate(found) == pytest.approx(rate)
    assert settings["mixup_alpha" if "b4" in name else "warmup_epochs"] == (
        0.2 if "b4" in name else 5
    )
    assert (settings["lr_decay"], settings["weight_decay"]) == ("cosine", 5e-6)
    assert (settings["weight_init"], settings["batch_norm"]) == ("fan_out", "syncbn")
    assert (settings["use_amp"], settings["use_xla"]) == ("AMP" in name, True)
    assert settings.get("tf32", True) == ("FP32" not in name)


# From the scripts' second version, and from the PyTorch example's configs.yml for EfficientNet.
@pytest.mark.parametrize(
    ("name", "batch"),
    [
        ("b0/AMP/V100-32G", 512),
        ("b0/FP32/V100-32G", 256),
        ("b0/AMP/T4", 128),
        ("b0/FP32/T4", 64),
        ("b4/AMP/V100-16G", 32),
        ("b4/FP32/V100-16G", 16),
        ("b4/AMP/T4", 32),
        ("b4/FP32/T4", 16),
    ],
)
def test_other_efficientnet_batches_equal_the_published_ones(name, batch):
    assert find(name).launch["train_batch_size"] == batch
    assert find(name).published


@pytest.mark.parametrize(
    ("name", "batch"),
    [
        ("b0/AMP/A100-80G", 1024),
        ("b0/TF32/A100-80G", 512),
        ("b0/AMP/V100-16G", 256),
        ("b0/FP32/V100-16G", 128),
        ("b4/AMP/A100-80G", 128),
        ("b4/TF32/A100-80G", 64),
        ("b4/AMP/V100-32G", 64),
        ("b4/FP32/V100-32G", 32),
    ],
)
def test_efficientnet_evaluation_batches_equal_nvidias_scripts(name, batch):
    found = find(f"{name}/evaluate")
    assert (found.launch["mode"], found.launch["eval_batch_size"]) == ("eval", batch)


# From configs.yml of the PyTorch example (resnet50 in FP32 on DGX-1: from its older scripts):
# images per GPU, images per update, peak learning rate, weight decay as a multiple of 1/32768.
RESNET_CONFIGS = [
    ("resnet50/AMP/DGX1V", 256, 2048, 2.048, 1),
    ("resnet50/FP32/DGX1V", 128, 2048, 2.048, 1),
    ("resnet50/AMP/DGX2V", 256, 4096, 4.096, 1),
    ("resnet50/FP32/DGX2V", 256, 4096, 4.096, 1),
    ("resnet50/AMP/DGXA100", 256, 2048, 2.048, 1),
    ("resnet50/TF32/DGXA100", 256, 2048, 2.048, 1),
    ("resnet50/AMP/T4", 256, 2048, 2.048, 1),
    ("resnet50/FP32/T4", 128, 2048, 2.048, 1),
    ("resnext101-32x4d/AMP/DGX1V", 128, 1024, 1.024, 2),
    ("resnext101-32x4d/FP32/DGX1V", 64, 1024, 1.024, 2),
    ("resnext101-32x4d/AMP/DGXA100", 128, 1024, 1.024, 2),
    ("resnext101-32x4d/TF32/DGXA100", 128, 1024, 1.024, 2),
    ("resnext101-32x4d/AMP/T4", 128, 1024, 1.024, 2),
    ("resnext101-32x4d/FP32/T4", 64, 1024, 1.024, 2),
    ("se-resnext101-32x4d/AMP/DGX1V", 112, 896, 0.896, 2),
    ("se-resnext101-32x4d/FP32/DGX1V", 64, 1024, 1.024, 2),
    ("se-resnext101-32x4d/AMP/DGXA100", 128, 1024, 1.024, 2),
    ("se-resnext101-32x4d/TF32/DGXA100", 128, 1024, 1.024, 2),
]


@pytest.mark.parametrize(("name", "batch", "update", "rate", "decay"), RESNET_CONFIGS)
def test_resnet_recipes_equal_nvidias_documents(name, batch, update, rate, decay):
    for epochs in (90, 250):
        found = find(f"{name}/{epochs}E")
        settings = found.recipe.settings | found.launch
        passes = update // (batch * found.gpus)
        assert found.published
        assert settings["train_batch_size"] == batch
        assert settings["optimizer_batch_size"] == (update if passes > 1 else None)
        assert passes * batch * found.gpus == found.images_per_update == update
        assert peak_rate(found) == pytest.approx(rate)
        assert settings["weight_decay"] == decay / 32768
        assert settings["weight_decay_style"] == "half_l2"
        assert (settings["optimizer"], settings["momentum"]) == ("momentum", 0.875)
        assert (settings["lr_decay"], settings["warmup_epochs"]) == ("cosine", 8)
        assert (settings["label_smoothing"], settings["weight_init"]) == (0.1, "fan_in")
        assert settings["mixup_alpha"] == (0.2 if epochs == 250 else 0)
        assert settings["max_epochs"] == epochs


def test_a_resnets_learning_rate_warms_up_to_its_peak_and_ends_at_zero():
    settings = find("resnet50/A100/90E").recipe.settings
    config = Config(**settings)
    rate = make_schedule(**schedule_arguments(config), base_lr=2.048, steps_per_epoch=626)
    assert rate(8 * 626) == pytest.approx(2.048)
    assert rate(90 * 626) == pytest.approx(0, abs=1e-6)


def test_other_efficientnets_have_the_papers_batch_and_learning_rate():
    for b, platform in product((1, 2, 3, 5, 6, 7), PLATFORMS):
        found = find(f"b{b}/{platform}")
        assert found.images_per_update == 4096
        assert peak_rate(found) == pytest.approx(0.256)
        assert not found.published


def test_every_combination_of_the_table_sets_existing_flags_only():
    flags = {f.name for f in fields(Config)}
    for model, platform, precision in product(MODELS, PLATFORMS, table()["precisions"]):
        lacks = PLATFORMS[platform].get("lacks", {})
        for mode, epochs in product(table()["modes"], MODELS[model]["recipes"]):
            chosen = (model, precision, platform, mode, epochs)
            if precision in lacks:
                with pytest.raises(ConfigError, match=f"{precision} on {platform}"):
                    lookup(*chosen)
                break
            found = lookup(*chosen)
            settings = found.recipe.settings | found.launch
            assert set(settings) <= flags
            assert settings["arch"] == model
            one_pass = found.launch["train_batch_size"] * found.gpus
            assert found.images_per_update % one_pass == 0
            assert find(found.name) == found


def test_batches_without_a_source_are_not_marked_as_published():
    for name in ("b0/H100-80G", "resnet50/H200-141G", "resnet50/cpu", "resnet18/A100"):
        assert not find(name).published
    assert not find("resnet50/FP32/A100").published
    assert find("resnet50/TF32/A100").published
    assert find("resnet50/FP32/V100").published


@pytest.mark.parametrize(
    ("gpus", "passes", "images"), [(1, 8, 2048), (2, 4, 2048), (3, 3, 2304), (8, 1, 2048)]
)
def test_fewer_gpus_accumulate_gradients_up_to_the_documented_batch(gpus, passes, images):
    found = find(f"resnet50/A100/{gpus}x")
    assert found.gpus == gpus
    assert found.images_per_update == passes * gpus * 256 == images
    assert found.launch["optimizer_batch_size"] == (images if passes > 1 else None)
    assert peak_rate(found) == pytest.approx(images / 1000)


def test_more_gpus_mean_a_larger_batch_and_a_higher_learning_rate():
    found = find("b0/AMP/A100/16x")
    assert (found.images_per_update, found.launch["optimizer_batch_size"]) == (16384, None)
    assert peak_rate(found) == pytest.approx(0.64)


def test_benchmarks_accumulate_no_gradients():
    found = find("resnet50/FP32/V100/1x/train_benchmark_short")
    assert found.launch["optimizer_batch_size"] is None
    assert (found.launch["mode"], found.launch["data_backend"]) == (
        "training_benchmark",
        "synthetic",
    )
    assert found.launch["prof"] <= 100
    assert (find("b0/A100/predict").gpus, find("b0/A100/predict").launch["mode"]) == (1, "predict")


def test_parts_of_a_recipes_name_have_any_order_and_synonyms():
    wanted = find("resnet50/AMP/DGXA100/convergence/90E")
    assert wanted.name == "resnet50/AMP/DGXA100/convergence/90E"
    for name in ("90e,A100-80G,amp,ResNet50", "resnet50 DGXA100/train 90E", "resnet50/a100//90E"):
        assert find(name) == wanted
    assert find("b0/V100-16G").name == "efficientnet-b0/AMP/DGX1V/convergence/500E"
    assert find("resnet50/cpu").name == "resnet50/FP32/cpu/convergence/250E"
    assert find("resnet50/DGX1V/benchmark_training").launch["mode"] == "training_benchmark"


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("resnet50/AMP/DGXA10", "unknown part DGXA10; did you mean DGXA100"),
        ("resnet5/AMP/DGXA100", "unknown part resnet5; did you mean resnet50"),
        ("resnet50/BF16/A100", "unknown part BF16; see `python -m"),
        ("resnet50/A100/convergance", "unknown part convergance; did you mean convergence"),
        ("resnet50/A100/0x", "unknown part 0x"),
        ("resnet50/A100/91E", "no recipe of 91 epochs; it has 50E, 90E, 250E"),
        ("resnet50/A100/T4", "gives two values for platform: DGXA100 and T4"),
        ("AMP/A100", "needs a model: efficientnet-b0,"),
        ("resnet50/AMP", "needs a platform: DGX1V,"),
        ("resnet50/TF32/V100", "TF32 on DGX1V: Volta GPUs have no TensorFloat-32; use AMP or FP32"),
        ("resnet50/TF32/T4", "TF32 on T4: Turing GPUs have no TensorFloat-32"),
    ],
)
def test_an_unknown_part_of_a_recipes_name_is_refused_with_a_suggestion(name, answer, refused):
    with pytest.raises(ConfigError, match=re.escape(answer)):
        find(name)
    assert answer in refused("--recipe", name)
    assert main(name.split("/")) == 2


def test_lookup_takes_no_abbreviated_names():
    with pytest.raises(ConfigError, match="did you mean resnet50"):
        lookup("resnet-50", platform="DGXA100")


# Command line


def test_a_recipe_sets_the_config_and_is_recorded_in_it(folders, tmp_path):
    args = ["--data_dir", str(folders), "--model_dir", str(tmp_path)]
    config = parse(["--recipe", "90E/resnet50/A100", *args])
    assert config.recipe == "resnet50/AMP/DGXA100/convergence/90E"
    assert (config.mode, config.arch, config.max_epochs) == ("train_and_eval", "resnet50", 90)
    assert (config.use_amp, config.use_xla, config.tf32) == (True, True, True)
    # Only one process was started, so gradients are accumulated up to the recipe's batch.
    assert (config.train_batch_size, config.optimizer_batch_size) == (256, 2048)
    assert config.crop_area_min == 0.08  # the family's default: no recipe sets it
    saved = tmp_path / "config.yaml"
    saved.write_text(config.to_yaml())
    assert "recipe: resnet50/AMP/DGXA100/convergence/90E" in saved.read_text()
    assert parse(["--config", str(saved)]) == config


def test_a_config_overrides_a_recipe_and_flags_override_both(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("momentum: 0.5\nlr_init: 7.0\n")
    args = ["--mode", "summary", "--recipe", "resnet50/A100/90E"]
    found = parse([*args, "--config", str(config), "--lr_init", "3", "--no-use_xla"])
    assert (found.mode, found.momentum, found.lr_init) == ("summary", 0.5, 3.0)
    assert (found.use_xla, found.label_smoothing) == (False, 0.1)


@pytest.mark.parametrize("started", [4, 8, 16])
def test_a_recipes_batch_is_kept_for_the_number_of_started_processes(started, monkeypatch):
    monkeypatch.setenv("HOROVOD_SIZE", str(started))
    config = parse(["--mode", "summary", "--recipe", "resnet50/FP32/V100"])
    assert config.optimizer_batch_size == (2048 if started < 16 else None)


def test_a_recipe_for_another_number_of_processes_is_refused(refused):
    text = refused("--mode", "summary", "--recipe", "resnet50/A100/8x")
    assert "is for 8 processes, and 1 were started: use --nproc 8" in text


@pytest.mark.parametrize("platform", ["A100", "cpu"])
@pytest.mark.parametrize("mode", ["convergence", "train_benchmark", "train_benchmark_short"])
@pytest.mark.parametrize("model", ["b0", "resnet50"])
def test_recipes_for_training_pass_all_checks_of_the_settings(
    model, mode, platform, folders, tmp_path
):
    args = ["--data_dir", str(folders), "--model_dir", str(tmp_path)]
    config = parse(["--recipe", f"{model}/{platform}/{mode}", *args])
    assert config.mode == table()["modes"][mode]["settings"]["mode"]


def test_the_module_prints_a_choice_as_yaml(capsys):
    assert main(["resnet50", "AMP", "DGXA100", "convergence", "90E"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    found = find("resnet50/AMP/DGXA100/90E")
    assert printed == found.recipe.settings | found.launch | {"gpus": 8}


def test_the_module_prints_its_usage(capsys):
    for words in (["--help"], ["resnet50", "-h"]):
        assert main(words) == 0
        assert "python -m convoy.runtime.recipes resnet50" in capsys.readouterr().out


def test_the_module_prints_the_number_of_processes(capsys):
    for words, gpus in ((["resnet50", "DGX2V"], 16), (["b0", "A100", "predict"], 1)):
        assert main([*words, "--nproc"]) == 0
        assert capsys.readouterr().out == f"{gpus}\n"


def test_the_module_prints_the_table_in_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in (*MODELS, *PLATFORMS))
    assert "…" not in text
    assert re.search(r"resnet50 +50 90 250 +256/128 +256/128 +256/256 +256/256", text)
