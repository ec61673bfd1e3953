"""Fine-tuning as in `scripts/demo_finetune.sh`, with a tiny model."""

import json
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from convoy.dataloader.prepare.digits import prepare_digits
from convoy.runtime.run_folder import checkpoint, which_checkpoint
from main import main

ROOT = Path(__file__).parents[2]
RECIPE = ("--config", str(ROOT / "configs/digits_few.yaml"))
TINY = ("--arch", "efficientnet-test", "--image_size", "32", "--warmup_epochs", "0")


@dataclass
class Phase:
    """A run's folder, its newest checkpoint, and its output."""

    model_dir: Path
    saved: checkpoint.Checkpoint
    said: str


@pytest.fixture(scope="module")
def phases(trained, tmp_path_factory):
    """The ten-class run `trained`; then its frozen backbone with three classes; then all layers."""
    folder = tmp_path_factory.mktemp("finetune") / "seed0"
    data = str(folder.parent / "few")
    sizes = {"image_size": 32, "train_examples": 45, "validation_fraction": 0.1}
    prepare_digits(data, classes=(7, 8, 9), **sizes)

    def run(name, *flags):
        model_dir = folder / name
        flags = (*RECIPE, *TINY, "--data_dir", data, "--model_dir", str(model_dir), *flags)
        with redirect_stdout(StringIO()) as said:
            assert main(list(map(str, flags))) == 0
        return Phase(model_dir, checkpoint.read(checkpoint.latest(model_dir)), said.getvalue())

    source = checkpoint.read(which_checkpoint.resolve(trained.model_dir, "last"))
    frozen = run(
        *("frozen", "--pretrained_from_file", source.path, "--weights", "raw"),
        *("--freeze_backbone", "--max_epochs", "1", "--lr_init", "0.03"),
    )
    tuned = run("tuned", "--pretrained_from_file", frozen.model_dir, "--max_epochs", "2")
    run("scratch")
    return source, frozen, tuned


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_with_a_frozen_backbone_only_the_classifier_changes(phases):
    source, frozen, _ = phases
    assert "the classifier is the file's, its classes by name" in frozen.said
    assert frozen.saved.state["class_names"] == ["7", "8", "9"]
    better = source.ema if source.state["better_weights"] == "ema" else source.model
    for name, weights in frozen.saved.model.items():
        if name.startswith("predictions/"):
            assert weights.shape[-1] == 3
        else:  # equal to the bit, including the running statistics of batch norm
            np.testing.assert_array_equal(weights, better[name], err_msg=name)
    assert any(name.endswith("moving_variance") for name in frozen.saved.model)
    assert frozen.saved.model["predictions/bias"].any()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_tuning_continues_from_the_frozen_run_and_changes_every_weight(phases):
    _, frozen, tuned = phases
    assert "new classifier" not in tuned.said
    assert "initial values" not in tuned.said
    for name, weights in tuned.saved.model.items():
        assert (weights != frozen.saved.model[name]).any(), name


def test_frozen_batch_norm_does_not_depend_on_the_batch():
    import keras

    from convoy.model import build_model
    from convoy.model.weights import freeze_backbone

    model = build_model("efficientnet-test", num_classes=3, image_size=32, stochastic_depth=0.0)
    features = keras.Model(model.input, model.get_layer("avg_pool").output)
    images = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3)).astype("uint8")
    at_rest = np.asarray(features(images, training=False))
    assert np.abs(np.asarray(features(images, training=True)) - at_rest).max() > 1e-3
    at_rest = np.asarray(features(images, training=False))
    freeze_backbone(model, "efficientnet-test")
    np.testing.assert_array_equal(np.asarray(features(images, training=True)), at_rest)


def table(folder):
    command = [sys.executable, "scripts/finetune_table.py", str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_table_shows_the_final_accuracy_of_the_runs(phases):
    folder = phases[2].model_dir.parent.parent
    done = table(folder)
    seed = done.stdout.splitlines()[1].split()
    for phase, shown in zip(phases[1:], seed[2:], strict=True):
        top1 = phase.saved.state["metrics"]["eval_accuracy_top_1"]
        assert shown == f"{100 * top1:.2f}%"
    assert done.returncode == (0 if float(seed[3][:-1]) > float(seed[1][:-1]) else 1), done.stderr


def write_run(model_dir, epochs, top1, **settings):
    """Writes a log with the lines that the table reads, and others."""
    settings = {"max_epochs": epochs, "data_dir": "few"} | settings
    lines = [
        {"step": "PARAMETER", "data": settings},
        {"type": "METADATA", "metric": "val.top1"},
        {"step": [1], "data": {"eval_accuracy_top_1": 0.1}},
        {"step": [], "data": {"eval_accuracy_top_1": top1}},
    ]
    model_dir.mkdir(parents=True, exist_ok=True)
    text = "".join(f"DLLL {json.dumps(line)}\n" for line in lines)
    (model_dir / "log.json").write_text(text)


def write_seed(folder, scratch, tuned, **settings):
    write_run(folder / "scratch", 3, scratch)
    write_run(folder / "frozen", 1, 0.25)
    write_run(folder / "tuned", 2, tuned, **settings)


def test_the_table_exits_with_0_only_if_fine_tuning_wins(tmp_path):
    write_seed(tmp_path / "seed2", 0.5, 0.75)
    write_seed(tmp_path / "seed10", 0.75, 0.625)
    done = table(tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[1:4]]
    assert rows == [
        ["2", "50.00%", "25.00%", "75.00%"],
        ["10", "75.00%", "25.00%", "62.50%"],
        ["mean", "62.50%", "25.00%", "68.75%"],
    ]
    assert max(map(len, done.stdout.splitlines())) <= 80
    write_seed(tmp_path / "seed2", 0.5, 0.625)  # equal on average is no win
    assert table(tmp_path).returncode == 1


def test_the_table_refuses_unequal_budgets_and_missing_runs(tmp_path):
    write_seed(tmp_path / "seed0", 0.5, 0.75, data_dir="many")
    assert "differ in data_dir" in table(tmp_path).stderr
    write_seed(tmp_path / "seed0", 0.5, 0.75)
    write_run(tmp_path / "seed0/tuned", 9, 0.75)
    unequal = table(tmp_path)
    assert unequal.returncode == 2
    assert "total epochs" in unequal.stderr
    (tmp_path / "seed0/tuned/log.json").unlink()
    missing = table(tmp_path)
    assert missing.returncode == 2
    assert "seed0/tuned" in missing.stderr
