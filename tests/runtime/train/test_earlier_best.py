"""The best result of a run that is resumed with other validation images or another metric."""

import json
import re
import shutil

import pytest
from PIL import Image

from convoy.runtime.run_folder import checkpoint, which_checkpoint
from main import main
from tests.runtime.class_folders import write_class_folders


@pytest.fixture
def resumed(tmp_path, small_run, capsys):
    """`resumed(…)` trains one more epoch on class folders; returns what it said."""
    splits = {"train": {"dark": 8, "light": 8}, "val": {"dark": 6, "light": 6}}

    def picture(name, i):
        return Image.new("RGB", (32, 32), (40 + i,) * 3 if name == "dark" else (200 + i,) * 3)

    write_class_folders(tmp_path / "data", splits, picture, "bmp")

    def train(*more):
        flags = [*small_run, "--data_dir", str(tmp_path / "data"), "--max_epochs", "9", *more]
        flags += [
            "--model_dir",
            str(tmp_path / "run"),
            "--keep_checkpoints",
            "1",
            "--resume_checkpoint",
        ]
        assert main([*flags, "--run_epochs", "1"]) == 0
        return capsys.readouterr().out

    return train


def best_of(run):
    return json.loads((run / "checkpoints" / "best.json").read_text())


def epochs_of(run):
    found = checkpoint.complete_checkpoints(run)
    return [checkpoint.read_state(path)["epoch"] for path in found]


def pretend(run, epoch, **figures):
    """Makes the newest checkpoint's evaluation better or worse, as if the model were."""
    path = checkpoint.latest(run)
    facts = json.loads((path / "score.json").read_text())
    del facts["of"]
    assert facts["best"]["epoch"] == epoch
    facts["metrics"] |= figures
    facts["best"]["value"] = facts["score"] = figures["eval_accuracy_top_1"]
    checkpoint.add_score(path, facts)


def test_new_validation_images_begin_new_results_and_keep_the_old_best(resumed, tmp_path):
    """Otherwise scores of different images are compared, and the earlier best is deleted."""
    run = tmp_path / "run"
    resumed()
    pretend(run, 1, eval_accuracy_top_1=1.0)
    assert "the validation images changed" not in resumed()
    assert best_of(run)["epoch"] == 1
    shutil.rmtree(tmp_path / "data" / "val" / "light")
    Image.new("RGB", (48, 48), (190,) * 3).save(tmp_path / "data" / "val" / "dark" / "0.bmp")
    (tmp_path / "data" / "val" / "light").mkdir()
    Image.new("RGB", (32, 32), (210,) * 3).save(tmp_path / "data" / "val" / "light" / "0.bmp")
    text = resumed()
    assert "WARNING: the validation images changed (7 instead of 12), so earlier results" in text
    assert "The best so far, that of epoch 1 (100.00%), does not count any more" in text
    assert best_of(run)["epoch"] == 3
    assert epochs_of(run) == [1, 3]
    assert "the validation images changed" not in resumed()
    assert 1 in epochs_of(run)


def test_an_exchanged_file_is_noticed_by_its_size(resumed, tmp_path):
    resumed()
    Image.new("RGB", (48, 48), (190,) * 3).save(tmp_path / "data" / "val" / "dark" / "0.bmp")
    assert "(12 as before, but other files)" in resumed()
    Image.new("RGB", (32, 32), (40,) * 3).save(tmp_path / "data" / "val" / "dark" / "0.bmp")
    text = resumed()
    assert re.search(r"the best evaluation of these images so far is that of epoch 1: \d", text)


def test_another_crop_begins_new_results(resumed, tmp_path):
    run = tmp_path / "run"
    resumed()
    pretend(run, 1, eval_accuracy_top_1=1.0)
    text = " ".join(resumed("--crop_padding", "3", "--eval_crop", "resize").split())
    assert (
        "the validation images changed (--eval_crop resize instead of crop, --crop_padding 3"
        " instead of" in text
    )
    assert "The best so far, that of epoch 1 (100.00%), does not count any more" in text
    assert best_of(run)["epoch"] == 2
    path = checkpoint.latest(run)
    facts = json.loads((path / "score.json").read_text())
    del facts["of"]
    for noted in (facts["judged"], facts["best"]):  # as older versions wrote it
        del noted["images"]["shown"]
    checkpoint.add_score(path, facts)
    assert "changed" not in resumed("--crop_padding", "3", "--eval_crop", "resize")


def test_another_metric_finds_its_best_among_the_saved_checkpoints(resumed, tmp_path):
    """All figures of an evaluation are saved, so the second epoch need not be the first by it."""
    run = tmp_path / "run"
    resumed()
    pretend(run, 1, eval_accuracy_top_1=1.0, eval_loss=0.001)
    text = resumed("--best_metric", "loss")
    assert (
        "the best evaluation by --best_metric loss so far is that of epoch 1: loss 0.0010" in text
    )
    best = best_of(run)
    assert (best["metric"], best["epoch"], best["value"]) == ("eval_loss", 1, 0.001)
    assert best["top1"] == 1.0
    assert which_checkpoint.best(run) == run / "checkpoints" / best["checkpoint"]


def test_a_resumed_run_repairs_best_json(resumed, tmp_path):
    run = tmp_path / "run"
    resumed()
    pretend(run, 1, eval_accuracy_top_1=1.0)
    file = run / "checkpoints" / "best.json"
    for spoil in (file.unlink, lambda: file.write_text("")):
        spoil()
        resumed()
        assert best_of(run)["epoch"] == 1
        assert best_of(run)["checkpoint"] == which_checkpoint.best(run).name


def test_a_launch_that_evaluates_nothing_keeps_the_best(resumed, tmp_path):
    """`--mode train` called it gone, because there were no images; the next launch forgot it."""
    resumed()
    pretend(tmp_path / "run", 1, eval_accuracy_top_1=1.0)
    assert "the validation images changed" not in resumed("--mode", "train")
    assert best_of(tmp_path / "run")["epoch"] == 1
    resumed()
    assert best_of(tmp_path / "run")["epoch"] == 1


def test_a_best_that_a_launch_dropped_is_found_again_among_the_checkpoints(resumed, tmp_path):
    run = tmp_path / "run"
    resumed()
    pretend(run, 1, eval_accuracy_top_1=1.0)
    resumed("--keep_checkpoints", "9")
    newest = checkpoint.latest(run)
    facts = json.loads((newest / "score.json").read_text())
    del facts["of"]
    checkpoint.add_score(newest, facts | {"best": {}, "score": None})
    text = resumed("--keep_checkpoints", "9")
    assert "the best evaluation of these images so far is that of epoch 1: 100.00%" in text
    assert best_of(run)["epoch"] == 1
