"""Flags of other programs are translated, and the mode can be the first word."""

import pytest

from convoy.runtime.command_line.cli import parse
from convoy.runtime.command_line.translation import translations, understand
from convoy.runtime.settings.config import spellings
from convoy.runtime.settings.modes import MODES
from convoy.runtime.settings.other_names import NEAR, SAME


def test_other_names_lead_to_existing_flags_and_hide_none():
    assert set(SAME.values()) <= spellings().keys()
    assert {name for name in NEAR.values() if not name.startswith("mode ")} <= spellings().keys()
    assert not (SAME.keys() | NEAR.keys()) & spellings().keys()
    assert not SAME.keys() & NEAR.keys()


@pytest.mark.parametrize(
    ("written", "own"),
    [
        ("--lr=0.1", "--lr_init=0.1"),
        ("--learning-rate", "--lr_init"),
        ("--epochs", "--max_epochs"),
        ("--batch_size", "--train_batch_size"),
        ("--model", "--arch"),
        ("--workers", "--num_workers"),
        ("--lr_scheduler", "--lr_decay"),
        ("--data-dir", "--data_dir"),
        ("--no-amp", "--no-use_amp"),
        ("--no-use-xla", "--no-use_xla"),
        ("--no-lr", "--no-lr"),  # --lr is not a switch: refused later
        ("--no_checkpoints", "--no_checkpoints"),
        ("--config", "--config"),
        ("-1", "-1"),
        ("lr", "lr"),
    ],
)
def test_flags_of_other_programs_are_translated(written, own):
    assert understand(["--mode", "env", written]) == ["--mode", "env", own]


def test_translated_flags_are_reported_in_one_line(capsys):
    config = parse(["--mode", "summary", "--lr", "0.5", "--epochs=7", "--weight-decay", "0.25"])
    assert (config.lr_init, config.max_epochs, config.weight_decay) == (0.5, 7, 0.25)
    said = "convoy: took --lr as --lr_init (for --lr_base_batch images per step), --epochs as"
    assert " ".join(capsys.readouterr().err.split()).startswith(said + " --max_epochs")
    assert translations(["--weight-decay", "1", "--max_epochs", "3"]) == ""


@pytest.mark.parametrize(
    ("args", "own"),
    [
        (["predict", "--batch_size", "8"], "--predict_batch_size"),
        (["--bs", "8", "--mode", "prediction"], "--predict_batch_size"),
        (["--mode=eval", "--batch-size", "8"], "--eval_batch_size"),
        (["inference_benchmark", "--batch", "8"], "--eval_batch_size"),
        (["train", "--batch_size", "8"], "--train_batch_size"),
    ],
)
def test_the_batch_size_is_that_of_the_mode(args, own):
    assert own in understand(args)
    assert f" as {own}" in translations(args)


def test_our_own_name_of_the_training_batch_stays():
    assert "--train_batch_size" in understand(["eval", "--train_batch_size", "8"])
    assert translations(["eval", "--train_batch_size", "8"]) == ""


@pytest.mark.parametrize("mode", MODES)
def test_the_first_word_can_be_the_mode(mode):
    assert understand([mode, "--seed", "3"]) == ["--seed", "3", "--mode", mode]


def test_the_first_word_overrides_the_mode_of_a_recipe(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("mode: train\narch: resnet50\n")
    config = parse(["summary", "--config", str(recipe)])
    assert (config.mode, config.arch) == ("summary", "resnet50")


def test_the_mode_as_first_word_accepts_older_names_and_help():
    assert parse(["summary", "--arch", "resnet50"]).mode == "summary"
    assert understand(["evaluate"]) == ["--mode", "eval"]
    assert understand(["help", "data"]) == ["--help", "data"]
    assert understand([]) == []


@pytest.mark.parametrize(
    ("args", "answer"),
    [
        (["evl"], "there is no mode evl; did you mean eval?"),
        (["trian", "--lr", "1"], "there is no mode trian; did you mean train?"),
        (["qqqqqqqq"], "choose from train_and_eval"),
        (["./photos"], "--data_dir ./photos"),
        (["eval", "--mode", "train"], "eval is a mode, and --mode names another"),
        (["--seed", "3", "eval"], "eval is a mode: --mode eval"),
        (["--train"], "there is no flag --train; did you mean --mode train?"),
        (["--gpus", "4"], "there is no flag --gpus; did you mean --nproc?"),
        (["--epohcs", "4"], "there is no flag --epohcs; did you mean --max_epochs?"),
    ],
)
def test_unknown_words_are_refused_with_a_suggestion(refused, args, answer):
    assert answer in refused(*args)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("--lerning_rate", "--lr_init"),
        ("--epoch", "--max_epochs"),
        ("--batchsize", "--train_batch_size"),
        ("--outputdir", "--model_dir"),  # the other program's name is nearer than --output
        ("--precison", "--dtype"),
        ("--lr_rate", "--lr_decay_rate"),
    ],
)
def test_misspelt_names_of_other_programs_suggest_our_flag(refused, written, meant):
    assert f"there is no flag {written}; did you mean {meant}?" in refused(written, "1")


@pytest.mark.parametrize("written", ["--frobnicate", "--bogus", "--verison", "--whatever"])
def test_a_flag_that_resembles_none_gets_no_suggestion(refused, written):
    assert f"there is no flag {written}; --help=all lists all" in refused(written, "1")
