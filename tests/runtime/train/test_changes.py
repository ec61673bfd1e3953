"""The messages of a resumed run about flags, processes and batches that have changed."""

import numpy as np
import pytest
import yaml

from convoy.runtime.run_folder.checkpoint import Checkpoint
from convoy.runtime.settings.config import Config, load_config
from convoy.runtime.settings.lr_schedule import build_schedule
from convoy.runtime.train.changes import check_resumed, config_with_history, what_changes
from convoy.utils.distributed import ranks
from convoy.utils.errors import ConfigError

CONFIG = Config(arch="efficientnet-test", warmup_epochs=0.0, max_epochs=3, lr_decay="cosine")
STATE = {
    "step": 24, "epoch": 3, "offset": 0, "data": {"train_examples": 120},
    "model": {"arch": "efficientnet-test"},
}  # fmt: skip


def saved(config=CONFIG, ema=False, **state):
    average = {"w": np.zeros(1)} if ema else {}
    return Checkpoint({}, average, state=STATE | state, config=config.to_yaml())


def lines(before, now, images=16, steps=8, **state):
    return what_changes(saved(before, **state), now, images, steps)


@pytest.fixture
def two_ranks(monkeypatch):
    monkeypatch.setattr(ranks, "size", lambda: 2)


def test_nothing_is_reported_if_nothing_changed(two_ranks):
    assert lines(CONFIG, CONFIG, processes=2, images_per_step=16) == []
    assert lines(CONFIG, CONFIG) == []


def test_flags_of_a_single_launch_are_not_reported_as_changes():
    now = CONFIG.with_(
        resume_checkpoint=True, run_epochs=1, prof=5, num_workers=3, cache="ram", log_steps=7,
        verbose=True, eval_batch_size=8, nproc=2, watchdog_seconds=5.0, data_wait_seconds=9.0,
        model_dir="elsewhere", trackers="tensorboard",
    )  # fmt: skip
    assert lines(CONFIG, now) == []


def test_each_changed_flag_is_reported_with_its_old_value():
    now = CONFIG.with_(label_smoothing=0.2, dropout=0.5, lr_boundaries=[1, "50%"], seed=3)
    assert lines(CONFIG, now) == [
        "--seed 3 instead of 0: the order of images and all other random choices change",
        "--dropout 0.5 instead of unset",
        "--lr_boundaries [1,50%] instead of unset",
        "--label_smoothing 0.2 instead of 0.1",
    ]


def test_a_jump_of_the_learning_rate_is_reported():
    """For a run that had ended, the jump starts at the rate of its last step."""
    now = CONFIG.with_(max_epochs=6, lr_init=0.004)
    first, second = lines(CONFIG, now, images_per_step=16)
    before, after = (build_schedule(config, 16, 8).rate for config in (CONFIG, now))
    assert first == "--max_epochs 6 instead of 3"
    assert second == (
        "--lr_init 0.004 instead of 0.008: the learning rate goes from"
        f" {before(23):.3g} to {after(24):.3g}"
    )
    (line,) = lines(CONFIG, CONFIG.with_(lr_end=1e-9), epoch=1, images_per_step=16)
    assert line == "--lr_end 1e-09 instead of 0.0", "the rate hardly changes"


def test_a_batch_size_that_changes_the_learning_rate_is_reported(two_ranks):
    now = CONFIG.with_(train_batch_size=64)
    first, second = lines(CONFIG, now, images=64, steps=2, images_per_step=32, epoch=1)
    assert first.startswith("--train_batch_size 64 instead of 32: the learning rate goes from 0.00")
    assert "64 images a step instead of 32: 2 steps an epoch, the learning rate follows" in second


def test_a_moving_average_that_is_dropped_or_begun_is_reported():
    with_it = CONFIG.with_(moving_average_decay=0.9)
    (line,) = what_changes(saved(with_it, ema=True), CONFIG, 16, 8)
    assert line == "--moving_average_decay 0.0 instead of 0.9: the moving average is dropped"
    (line,) = what_changes(saved(CONFIG), with_it, 16, 8)
    assert line.endswith("0.9 instead of 0.0: it starts from the current weights")


def test_a_changed_number_of_processes_and_batch_are_reported(two_ranks):
    fewer = {"processes": 4, "images_per_step": 128, "epoch": 1}
    first, second = lines(CONFIG, CONFIG, 64, 20, **fewer)
    assert "2 instead of 4 processes" in first
    assert "64 images a step instead of 128: 20 steps an epoch, the learning rate follows" in second
    assert "the place in the epoch and the order of images stay" in second
    (line,) = lines(CONFIG, CONFIG, 64, 20, processes=4, images_per_step=64)
    assert "2 instead of 4 processes" in line
    fixed = CONFIG.with_(lr_base_batch=0, steps_per_epoch=20)
    _, line = lines(fixed, fixed, 64, 20, **fewer)
    assert "the learning rate does not follow (--lr_base_batch 0)" in line
    assert "an epoch has other images (--steps_per_epoch)" in line


def test_an_old_checkpoint_that_counted_forward_passes_is_reported(two_ranks):
    config = Config(arch="efficientnet-test", grad_accum_steps=2, steps_per_epoch=20)
    old = {"processes": 2, "images_per_step": 64, "epoch": 1}
    (line,) = lines(config, config, 64, 20, **old)
    assert "--steps_per_epoch 20 counts updates: an epoch has 20 steps" in line
    assert "counted passes; an update has 2 of them" in line
    assert lines(config, config, 64, 20, **old, steps_per_epoch=20) == []
    whole = config.with_(steps_per_epoch=None)
    assert lines(whole, whole, 64, 20, **old) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"optimizer": "momentum"}, "--optimizer momentum: this run was trained with --optimizer"),
        ({"freeze_backbone": True}, "--freeze_backbone: this run was trained with --no-freeze_"),
    ],
)
def test_a_change_that_the_optimizer_state_does_not_allow_is_refused(change, named):
    with pytest.raises(ConfigError) as refused:
        check_resumed(saved(), CONFIG.with_(**change), 16, 8)
    assert named in str(refused.value)
    assert "--pretrained_from_file" in str(refused.value)


def test_flags_newer_than_the_checkpoint_are_not_reported_as_changes():
    old = yaml.safe_load(CONFIG.to_yaml())
    del old["max_bad_eval_examples"], old["lr_decay"]
    was = Checkpoint({}, state=STATE, config=yaml.safe_dump(old | {"gone": 1}))
    assert what_changes(was, CONFIG.with_(max_bad_eval_examples=3.0), 16, 8) == []


def test_the_runs_config_records_earlier_values_as_comments(tmp_path):
    first = config_with_history(CONFIG, None, "")
    longer = CONFIG.with_(max_epochs=6)
    second = config_with_history(longer, saved(), first)
    assert second.startswith("# until step 24 (epoch 3): max_epochs: 3\n")
    assert config_with_history(longer, saved(longer), second) == second, "no change adds no line"
    assert config_with_history(longer, saved(), second) == second, (
        "a repeated change adds no second line"
    )
    smoother = longer.with_(label_smoothing=0.0)
    third = config_with_history(smoother, saved(longer, step=30, offset=96), second)
    assert third.splitlines()[:2] == [
        "# until step 24 (epoch 3): max_epochs: 3",
        "# until step 30 (epoch 4): label_smoothing: 0.1",
    ]
    (tmp_path / "config.yaml").write_text(third)
    assert load_config(tmp_path / "config.yaml") == smoother


def test_another_path_to_the_same_data_is_no_change(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = saved(CONFIG.with_(data_dir="photos"))
    now = CONFIG.with_(data_dir=str(tmp_path / "photos"))
    assert what_changes(before, now, 16, 8) == []
    monkeypatch.chdir("/")
    assert what_changes(before, now, 16, 8) == []
    assert what_changes(before, now.with_(data_dir="/photos"), 16, 8) != []


def test_another_architecture_is_refused_before_other_changes():
    with pytest.raises(ConfigError, match=r"is of efficientnet-test, and --arch is resnet18: give"):
        check_resumed(saved(), CONFIG.with_(arch="resnet18", optimizer="momentum"), 16, 8)


def test_fewer_epochs_than_already_trained_are_refused():
    with pytest.raises(ConfigError, match=r"--max_epochs 2: this run has trained 3 epochs already"):
        check_resumed(saved(), CONFIG.with_(max_epochs=2), 16, 8)
