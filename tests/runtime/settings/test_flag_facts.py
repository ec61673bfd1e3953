"""What flags are declared to belong to: of each it has been decided."""

from dataclasses import fields

import pytest

from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flag_facts import (
    inherited,
    of_evaluation,
    on_model_card,
    told_on_resume,
    without_places,
)
from convoy.runtime.settings.flags import LAUNCH, SCOPES, flag

DECLARED = {f.name: f.metadata for f in fields(Config)}


def test_of_each_flag_it_has_been_decided_what_it_belongs_to():
    assert all(about["scope"] in SCOPES for about in DECLARED.values())
    with pytest.raises(TypeError):
        flag("Run", None, "a flag without a scope")


def test_what_belongs_to_one_launch_is_neither_inherited_nor_told():
    launch = {name for name, about in DECLARED.items() if about["scope"] is LAUNCH}
    assert launch >= {"model_dir", "checkpoint", "resume_checkpoint", "nproc", "predict_dir"}
    assert not launch & (inherited() | told_on_resume())


def test_an_evaluation_inherits_what_its_run_was_trained_and_evaluated_with():
    assert inherited() >= {"arch", "data_dir", "image_size", "eval_crop", "num_classes"}
    assert not inherited() & {"mode", "data_backend", "data_format", "overwrite", "verbose"}
    assert inherited() >= of_evaluation()


def test_caches_and_logs_are_not_told_when_a_run_goes_on():
    assert told_on_resume() >= {"lr_init", "mode", "data_backend", "seed", "max_epochs"}
    assert not told_on_resume() & {"cache", "num_workers", "log_steps", "top_k", "watchdog_seconds"}


def test_each_path_is_left_out_where_others_read_the_settings():
    settings = dict.fromkeys(DECLARED, "/home/ada/x")
    kept = without_places(settings)
    paths = {name for name, about in DECLARED.items() if about["path"] in ("path", "paths")}
    assert paths >= {"data_dir", "xla_cache", "report_checkpoints", "runs", "class_weights"}
    assert not paths & kept.keys()
    assert without_places({"made_in": "/home/ada"}) == {}
    assert without_places({"class_weights": "balanced"}) == {"class_weights": "balanced"}


def test_a_model_card_shows_how_the_weights_came_about():
    assert {"optimizer", "lr_init", "max_epochs", "seed"} <= set(on_model_card())
    assert not {"data_dir", "model_dir", "log_steps"} & set(on_model_card())
