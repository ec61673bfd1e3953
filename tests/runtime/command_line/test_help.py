"""`--help`: short, in 80 columns, without Python's terms, and complete with `--help=all`."""

from dataclasses import fields

import pytest

from convoy.runtime.command_line.cli import parse
from convoy.runtime.command_line.help import MOST_USED, WIDTH, asked, page
from convoy.runtime.settings.config import Config, kinds
from convoy.runtime.settings.modes import MODES

FLAGS = [f.name for f in fields(Config)]
GROUPS = list(dict.fromkeys(f.metadata["group"] for f in fields(Config)))


@pytest.mark.parametrize("topic", ["", "all", "groups", *(f"{g.split()[0]}" for g in GROUPS)])
def test_every_help_page_fits_into_80_columns_without_python_terms(topic):
    text = page(topic)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert not any(word in text for word in ("null", "None", "Literal", "Optional", "<class"))


def test_the_first_page_has_20_to_30_flags_and_ends_with_examples():
    text = page()
    shown = [name for name in FLAGS if f"\n  --{name}" in text]
    assert 20 <= len(shown) <= 30
    assert set(shown) >= {"data_dir", "model_dir", "max_epochs", "train_batch_size", "lr_init"}
    assert len(text.splitlines()) <= 100
    assert text.split("examples:")[1].count("python main.py") >= 5
    names = [name for names in MOST_USED.values() for name in names]
    assert len(names) == len(set(names))


def test_the_first_page_says_what_every_mode_does():
    lines = page().split("modes:")[1].split("\n\n")[0].split("\n")[1:]
    assert {line.split()[0]: " ".join(line.split()[1:]) for line in lines} == {
        name: mode.does for name, mode in MODES.items()
    }
    assert all(name in page("mode") for name in MODES)


def test_help_all_lists_every_choice_of_every_flag():
    told = " ".join(page("all").split())
    assert all(choice in told for kind in kinds().values() for choice in kind.choices)


def test_a_flags_line_has_its_value_its_effect_and_its_default():
    def line(name):
        return " ".join(page("all").split(f"  --{name}")[1].split("\n  --")[0].split())

    assert line("train_batch_size").startswith("N images per process and step;")
    assert line("train_batch_size").endswith("(default: chosen for the data)")
    assert line("loss ").startswith("{softmax,bce}")
    assert line("dropout").endswith("(default: the architecture's)")
    assert line("eval_crop").endswith("(default: the architecture's)")
    assert line("num_layers").endswith("(default: 2)")
    assert line("tf32").startswith(", --no-tf32")


def test_help_all_lists_every_flag_and_each_groups_page_its_own():
    text = page("all")
    for f in fields(Config):
        assert f"\n  --{f.name}" in text
        assert f"\n  --{f.name}" in page(f.metadata["group"].split()[0])
    assert "--print_completion SHELL" in text


@pytest.mark.parametrize("name", FLAGS)
def test_each_flag_and_alias_has_a_help_page(name):
    text = page(name)
    assert text.startswith(f"--{name}")
    assert "takes: " in text
    for alias in next(f for f in fields(Config) if f.name == name).metadata["aliases"]:
        assert f"--{alias}" in text
        assert page(f"--{alias}") == text


def test_the_page_of_a_flag_lists_the_modes_that_use_it():
    assert "\n    modes: predict\n" in page("flip_tta")
    assert "\n    modes: eval, predict, export, report\n" in page("label_file")
    assert "modes:" not in page("verbose")


def test_a_help_page_is_found_by_synonyms():
    assert page("lr") == page("lr_init") == page("--lr-init")
    assert "0.008, 0.1 for resnet" in " ".join(page("lr").split())
    assert page("speed") == page("precision")
    assert page("optimization") == page("optimisation")
    assert "--crop_padding" in page("crop")
    assert page("eval") == page()


@pytest.mark.parametrize(
    ("args", "topic"),
    [
        (["--help"], ""),
        (["-h"], ""),
        (["--data_dir", "x", "--help=all"], "all"),
        (["--help", "data"], "data"),
        (["--help", "--data_dir"], ""),
        (["--data_dir", "x"], None),
    ],
)
def test_help_is_recognised_anywhere_on_the_command_line(args, topic):
    assert asked(args) == topic


@pytest.mark.parametrize("args", [["--help"], ["help"], ["eval", "--help"], ["help", "data"]])
def test_help_is_printed_and_exits_with_0(args, capsys):
    with pytest.raises(SystemExit) as exit_:
        parse(args)
    assert exit_.value.code == 0
    assert "--data_dir PATH" in capsys.readouterr().out


def test_help_on_an_unknown_word_suggests_a_flag(refused):
    assert "--help=lr_inti: no flag matches; did you mean" in refused("--help=lr_inti")


def test_each_help_text_is_short_and_has_no_full_stop():
    for f in fields(Config):
        text = f.metadata["help"]
        assert 5 <= len(text) <= 110 or f.name == "mode"  # which lists all modes
        assert "unset" not in text, f.name  # `unset=` says that
        assert not text.endswith("."), f.name
