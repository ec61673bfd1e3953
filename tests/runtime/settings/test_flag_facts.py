"""The scope and path declarations of flags decide what is inherited, reported and published."""

from dataclasses import fields

import pytest

from convoy.runtime.settings.config import Config, kinds
from convoy.runtime.settings.flag_facts import (
    having,
    inherited,
    of_evaluation,
    told_on_resume,
    without_places,
)
from convoy.runtime.settings.flags import LAUNCH, SCOPES, Fact, flag

DECLARED = {f.name: f.metadata for f in fields(Config)}


def test_every_flag_must_declare_a_known_scope():
    assert all(about["scope"] in SCOPES for about in DECLARED.values())
    with pytest.raises(TypeError):
        flag("Run", None, "a flag without a scope")


def test_flags_of_a_single_launch_are_neither_inherited_nor_reported_on_resume():
    launch = {name for name, about in DECLARED.items() if about["scope"] is LAUNCH}
    assert launch >= {"model_dir", "checkpoint", "resume_checkpoint", "nproc", "predict_dir"}
    assert not launch & (inherited() | told_on_resume())


def test_an_evaluation_inherits_its_runs_model_and_data_settings():
    assert inherited() >= {"arch", "data_dir", "image_size", "eval_crop", "num_classes"}
    assert not inherited() & {"mode", "data_backend", "data_format", "overwrite", "verbose"}
    assert inherited() >= of_evaluation()


def test_changed_cache_and_log_settings_are_not_reported_on_resume():
    assert told_on_resume() >= {"lr_init", "mode", "data_backend", "seed", "max_epochs"}
    assert not told_on_resume() & {"cache", "num_workers", "log_steps", "top_k", "watchdog_seconds"}


def test_settings_for_publication_leave_out_every_path():
    settings = dict.fromkeys(DECLARED, "/home/ada/x")
    kept = without_places(settings)
    paths = {name for name, about in DECLARED.items() if about["path"] in ("path", "paths")}
    assert paths >= {"data_dir", "xla_cache", "report_checkpoints", "runs", "class_weights"}
    assert not paths & kept.keys()
    assert without_places({"made_in": "/home/ada"}) == {}
    assert without_places({"class_weights": "balanced"}) == {"class_weights": "balanced"}


def test_a_model_card_shows_training_settings_but_no_folders():
    assert {"optimizer", "lr_init", "max_epochs", "seed"} <= set(having(Fact.CARD))
    assert not {"data_dir", "model_dir", "log_steps"} & set(having(Fact.CARD))


def test_every_fact_holds_for_some_flag_and_the_rate_depends_on_every_flag_of_a_schedule():
    assert all(having(fact) for fact in Fact)
    spans = {name for name, kind in kinds().items() if kind.is_span}
    of_schedule = {name for name in DECLARED if name.startswith("lr_")} | spans
    assert spans == {"warmup_epochs", "lr_decay_epochs", "lr_boundaries"}
    assert of_schedule <= set(having(Fact.RATE))
