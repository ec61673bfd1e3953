"""`--help`: short, in 80 columns, in the reader's words, and complete on request."""

from dataclasses import fields

import pytest

from convoy.runtime.command_line.cli import parse
from convoy.runtime.command_line.help import DOES, MOST_USED, WIDTH, asked, page
from convoy.runtime.settings.config import MODES, Config, kinds

FLAGS = [f.name for f in fields(Config)]
GROUPS = list(dict.fromkeys(f.metadata["group"] for f in fields(Config)))


@pytest.mark.parametrize("topic", ["", "all", "groups", *(f"{g.split()[0]}" for g in GROUPS)])
def test_every_page_fits_into_80_columns(topic):
    text = page(topic)
    assert max(map(len, text.splitlines())) <= WIDTH
    # Not in the words of a Python programmer.
    assert not any(word in text for word in ("null", "None", "Literal", "Optional", "<class"))


def test_the_first_page_has_two_dozen_flags_and_ends_with_examples():
    text = page()
    shown = [name for name in FLAGS if f"\n  --{name}" in text]
    assert 20 <= len(shown) <= 30
    assert set(shown) >= {"data_dir", "model_dir", "max_epochs", "train_batch_size", "lr_init"}
    assert len(text.splitlines()) <= 100
    assert text.split("examples:")[1].count("python main.py") >= 5
    assert set(DOES) == set(MODES)
    names = [name for names in MOST_USED.values() for name in names]
    assert len(names) == len(set(names))


def test_all_choices_are_on_the_whole_page():
    told = " ".join(page("all").split())
    assert all(choice in told for kind in kinds().values() for choice in kind.choices)


def test_a_line_says_what_to_give_what_it_does_and_what_holds_otherwise():
    def line(name):
        return " ".join(page("all").split(f"  --{name}")[1].split("\n  --")[0].split())

    assert line("train_batch_size").startswith("N images per process and step;")
    assert line("train_batch_size").endswith("(default: chosen for the data)")
    assert line("loss ").startswith("{softmax,bce}")
    assert line("dropout").endswith("(default: the architecture's)")
    assert line("eval_crop").endswith("(default: the architecture's)")
    assert line("num_layers").endswith("(default: 2)")
    assert line("tf32").startswith(", --no-tf32")


def test_all_flags_are_on_the_whole_page_and_each_on_its_groups():
    text = page("all")
    for f in fields(Config):
        assert f"\n  --{f.name}" in text
        assert f"\n  --{f.name}" in page(f.metadata["group"].split()[0])
    assert "--print_completion SHELL" in text


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_can_be_looked_up(name):
    text = page(name)
    assert text.startswith(f"--{name}")
    assert "takes: " in text
    for alias in next(f for f in fields(Config) if f.name == name).metadata["aliases"]:
        assert f"--{alias}" in text
        assert page(f"--{alias}") == text


def test_a_page_is_found_by_other_words():
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
def test_help_may_stand_anywhere(args, topic):
    assert asked(args) == topic


@pytest.mark.parametrize("args", [["--help"], ["help"], ["eval", "--help"], ["help", "data"]])
def test_help_is_printed(args, capsys):
    with pytest.raises(SystemExit) as exit_:
        parse(args)
    assert exit_.value.code == 0
    assert "--data_dir PATH" in capsys.readouterr().out


def test_a_word_that_no_flag_has_is_answered(refused):
    assert "--help=lr_inti: no flag has to do with that; did you mean" in refused("--help=lr_inti")


def test_each_text_is_one_plain_sentence():
    for f in fields(Config):
        text = f.metadata["help"]
        assert 5 <= len(text) <= 110 or f.name == "mode"  # which lists all modes
        assert "unset" not in text, f.name  # it is said by `unset=`
        assert not text.endswith("."), f.name
