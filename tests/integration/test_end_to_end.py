"""Train, evaluate, resume and predict like a user."""

import json
import shutil

import numpy as np
import pytest
import yaml

from convoy.runtime import configure
from convoy.runtime.command_line.cli import parse
from convoy.runtime.run_folder import checkpoint
from convoy.runtime.settings.config import load_config
from main import main
from tests.integration.in_process import run

EVALUATION = ("eval_loss", "eval_accuracy_top_1", "eval_accuracy_top_5")


def summary(lines):
    """Returns the data of the log's last summary line, whose step is `()`."""
    return [line["data"] for line in lines if line["type"] == "LOG" and line["step"] == []][-1]


def test_a_run_leaves_its_configuration_log_and_checkpoints(trained):
    config = load_config(trained.model_dir / "config.yaml")
    assert (config.arch, config.max_epochs) == ("efficientnet-test", 2)
    assert yaml.safe_load((trained.model_dir / "config.yaml").read_text())["lr_init"] == 0.05
    found = checkpoint.complete_checkpoints(trained.model_dir)
    assert [path.name for path in found] == ["step-00000007", "step-00000014"]
    saved = checkpoint.read(found[-1])
    assert (saved.state["epoch"], saved.state["step"], saved.state["offset"]) == (2, 14, 0)
    assert saved.state["class_names"] == [str(i) for i in range(10)]
    assert set(saved.ema) == set(saved.model)
    best = json.loads((trained.model_dir / "checkpoints" / "best.json").read_text())
    assert (trained.model_dir / "checkpoints" / best["checkpoint"]).is_dir()
    assert sorted(path.name for path in trained.model_dir.iterdir()) == [
        *("checkpoints", "config.yaml", "environment.json", "log.json"),
    ]


def test_configure_in_python_takes_the_settings_of_the_run(trained):
    """`--mode eval` does the same."""
    applied = {"mode": "eval", "model_dir": str(trained.model_dir)}
    found = configure(**applied)
    assert found == parse([f"--{name}={value}" for name, value in applied.items()])
    assert (found.arch, found.lr_init) == ("efficientnet-test", 0.05)


def test_the_log_has_dlloggers_format_units_and_metrics(trained, log_lines):
    lines = log_lines(trained.model_dir / "log.json")
    steps = [line["step"] for line in lines if line["type"] == "LOG"]
    assert steps[0] == "PARAMETER"
    assert [step for step in steps if len(step) == 2] == [
        [epoch, 7 * (epoch - 1) + i] for epoch in (1, 2) for i in range(1, 8)
    ]
    assert [1] in steps
    assert [2] in steps
    assert steps[-1] == []
    by_step = {str(line["step"]): line["data"] for line in lines if line["type"] == "LOG"}
    assert by_step["PARAMETER"]["arch"] == "efficientnet-test"
    assert {"train.loss", "train.lr", "train.total_ips"} <= set(by_step["[1, 3]"])
    units = {line["metric"]: line["metadata"] for line in lines if line["type"] == "METADATA"}
    last = by_step["[]"]
    assert {*EVALUATION, "training_loss", "avg_exp_per_second_training"} <= set(last)
    for name in last:
        assert name in units or name.replace("eval_ema_", "eval_") in units, name
    assert units["avg_exp_per_second_training"]["unit"] == "images/s"
    assert units["latency_99pct"]["unit"] == "ms"
    rates = [line["data"]["train.lr"] for line in lines if len(line.get("step", "")) == 2]
    np.testing.assert_allclose(rates[:7], 0.05 * 16 / 128 * np.arange(1, 8) / 7, rtol=1e-6)


def test_output_in_a_file_has_plain_lines_without_control_characters(trained):
    assert "epoch 1/2" in trained.text
    assert "\x1b" not in trained.text
    assert "\r" not in trained.text
    progress = [line for line in trained.text.splitlines() if line.startswith("epoch ")]
    assert all(len(line) <= 100 for line in progress)  # other lines contain paths
    assert "Traceback" not in trained.text
    assert "Warning" not in trained.text


@pytest.mark.parametrize("weights", ["raw", "ema"])
def test_evaluating_a_checkpoint_gives_the_metrics_of_the_training_run(
    trained, tiny, log_lines, weights
):
    log = trained.model_dir / f"eval-{weights}.json"
    args = ("--mode", "eval", "--model_dir", trained.model_dir, "--data_dir", tiny)
    args += ("--checkpoint", "last", "--weights", weights, "--log_filename", log.name)
    try:
        assert run(*args) == 0
        got = summary(log_lines(log))
    finally:
        log.unlink(missing_ok=True)
    want = summary(log_lines(trained.model_dir / "log.json"))
    prefix = "eval_ema_" if weights == "ema" else "eval_"
    for name in EVALUATION:
        key = name.replace("eval_", prefix)
        assert got[name] == pytest.approx(want[key], abs=1e-6), name


@pytest.mark.slow
def test_a_run_in_two_launches_continues_position_log_and_best_result(
    trained, tmp_path, log_lines, capsys
):
    """`--run_epochs` ends the first launch early."""
    model_dir = tmp_path / "run"
    flags = [*trained.flags, "--model_dir", str(model_dir)]
    flags[flags.index("--max_epochs") + 1] = "3"
    assert main([*flags, "--run_epochs", "1"]) == 0
    assert [p.name for p in checkpoint.complete_checkpoints(model_dir)] == ["step-00000007"]
    assert main([*flags, "--resume_checkpoint"]) == 0
    out = capsys.readouterr().out
    assert "resuming from" in out
    assert "epoch 2, step 7" in out
    steps = [line["step"] for line in log_lines(model_dir / "log.json") if line["type"] == "LOG"]
    assert [step for step in steps if len(step) == 1] == sorted(
        [step for step in steps if len(step) == 1]
    )
    assert [3, 21] in steps
    assert checkpoint.read(checkpoint.latest(model_dir)).state["epoch"] == 3
    assert main([*flags, "--resume_checkpoint"]) == 0
    assert "nothing left to train" in capsys.readouterr().out


def test_resuming_without_a_checkpoint_starts_from_the_beginning(trained, tmp_path, capsys):
    args = ("--prof", 1, "--resume_checkpoint", "--mode", "train", "--model_dir", tmp_path)
    assert run(*trained.flags, *args) == 0
    assert "starting from the beginning" in capsys.readouterr().out


def test_resuming_with_another_model_is_refused_and_keeps_the_checkpoints(
    trained, tmp_path, capsys
):
    model_dir = tmp_path / "run"
    shutil.copytree(trained.model_dir, model_dir)
    before = checkpoint.read(checkpoint.latest(model_dir))
    args = ("--model_dir", model_dir, "--resume_checkpoint")
    assert run(*trained.flags, *args, "--bn_epsilon", 0.1) == 2
    told = "another model (--bn_epsilon 0.1 instead of 0.001): give the same flags"
    assert told in capsys.readouterr().err
    # The optimizer state would not fit either.
    assert run(*trained.flags, *args, "--arch", "resnet18") == 2
    told = "is of efficientnet-test, and --arch is resnet18: give --arch efficientnet-test, or"
    assert told in capsys.readouterr().err
    after = checkpoint.read(checkpoint.latest(model_dir))
    assert after.path == before.path


def test_a_new_run_does_not_overwrite_an_old_one(trained, capsys):
    with pytest.raises(SystemExit) as exit_:
        run(*trained.flags, "--model_dir", trained.model_dir)
    assert exit_.value.code == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "already holds checkpoints" in message
    assert "--resume_checkpoint" in message


def test_a_resumed_run_finds_the_data_of_its_start(trained, tmp_path, capsys):
    model_dir = tmp_path / "run"
    shutil.copytree(trained.model_dir, model_dir)
    at = trained.flags.index("--data_dir")
    flags = [*trained.flags[:at], *trained.flags[at + 2 :], "--resume_checkpoint"]
    assert run(*flags, "--model_dir", model_dir) == 0
    assert "nothing left to train" in capsys.readouterr().out


OPTIONS = {
    "bfloat16, accumulation, adamw, cosine": (
        *("--dtype", "bfloat16", "--optimizer_batch_size", "48", "--optimizer", "adamw"),
        *("--lr_decay", "cosine", "--num_workers", "1"),
    ),
    "float16, mixup, cutmix, adam, tensorboard": (
        *("--dtype", "float16", "--mixup_alpha", "0.2", "--cutmix_alpha", "1"),
        *("--optimizer", "adam", "--enable_tensorboard", "--lr_decay", "linear"),
        *("--training_report", "--report_images", "2"),
    ),
    "lamb, sigmoids, adaptive clipping": (
        *("--optimizer", "lamb", "--loss", "bce", "--bce_target_threshold", "0.2"),
        *("--grad_clip_agc", "0.05", "--grad_accum_steps", "2"),
    ),
    "another size, rand-augment, momentum": (
        *("--image_size", "40", "--augmenter_name", "randaugment", "--optimizer", "momentum"),
        *("--nesterov", "--lr_decay", "step", "--lr_boundaries=[1]", "--interpolation", "bicubic"),
    ),
}

QUICK = ("float16, mixup, cutmix, adam, tensorboard",)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(flags, id=name, marks=[] if name in QUICK else pytest.mark.slow)
        for name, flags in OPTIONS.items()
    ],
)
def test_a_combination_of_options_trains_to_finite_losses(
    options, trained, tmp_path, log_lines, keras_policy
):
    assert run(*trained.flags, *options, "--prof", "3", "--model_dir", tmp_path) == 0
    figures = summary(log_lines(tmp_path / "log.json"))
    assert np.isfinite(figures["training_loss"])
    assert checkpoint.latest(tmp_path).name == "step-00000003"
    steps = [line["step"] for line in log_lines(tmp_path / "log.json") if "step" in line]
    ended = checkpoint.read(checkpoint.latest(tmp_path)).state["epoch"]
    assert {step[0] for step in steps if len(step) == 1} == set(range(1, ended + 1))
    page = tmp_path / "report.html"
    assert page.exists() == ("--training_report" in options)
    if page.exists():
        for picture in ("training image", "its Grad-CAM"):
            assert page.read_text().count(f'alt="{picture}"') == 2


@pytest.mark.slow
def test_the_demo_trains_evaluates_and_predicts_digits(digits, convoy, tmp_path):
    """From prepared records to predictions for JPEGs, each step in its own process."""
    flags = ("--arch", "efficientnet-test", "--data_dir", digits.data_dir)
    recipe = ("--config", "configs/digits_b0.yaml", "--image_size", "32", "--max_epochs", "8")
    convoy(*recipe, *flags, "--model_dir", tmp_path, timeout=280)
    done = convoy("--mode", "eval", "--model_dir", tmp_path, "--data_dir", digits.data_dir)
    line = next(x for x in done.out.splitlines() if x.startswith("eval_accuracy_top_1"))
    assert float(line.split()[1]) > 0.5
    done = convoy("--mode", "predict", "--model_dir", tmp_path, "--predict_dir", digits.images)
    assert "0 unreadable" in done.out


def test_an_epochs_metrics_are_the_mean_over_its_images(trained, log_lines):
    """97 images in batches of 16: the last step of an epoch has one image."""
    lines = [line for line in log_lines(trained.model_dir / "log.json") if line.get("step")]
    found = {tuple(line["step"]): line["data"] for line in lines if "train.loss" in line["data"]}
    for epoch in (1, 2):
        for name in ("train.loss", "train.top1"):
            steps = [
                data[name] for step, data in found.items() if len(step) == 2 and step[0] == epoch
            ]
            assert len(steps) == 7
            mean = np.average(steps, weights=[16] * 6 + [1])
            assert found[(epoch,)][name] == pytest.approx(mean, rel=1e-6)
