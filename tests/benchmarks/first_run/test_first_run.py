"""`python -m benchmarks.first_run`: splits share no image, and results make the table."""

import json

import pytest
from PIL import Image

from benchmarks.first_run import __main__ as first_run
from benchmarks.first_run import contestants, search, sets, table
from benchmarks.first_run.contestants import Trial
from convoy.runtime.settings.config import Config

MACHINE = {"cpu": "A", "cores": 2, "date": "2026-01-01"}


def line(data, contestant, seed, top1, **flags):
    return {"data": data, "contestant": contestant, "seed": seed, "flags": flags, "top1": top1}


def test_more_training_digits_leave_the_validation_digits_unchanged_and_apart(tmp_path):
    pytest.importorskip("sklearn")
    few, many = (list(sets.digits(each)) for each in (20, 100))
    assert sets.write(tmp_path / "digits", few) == {"train": 200, "val": 400}
    kept = [[p.tobytes() for split, _, p in made if split == "val"] for made in (few, many)]
    assert kept[0] == kept[1]
    assert not {p.tobytes() for split, _, p in many if split == "train"} & set(kept[0])
    assert len(list((tmp_path / "digits" / "train").iterdir())) == 10


def test_each_family_of_typefaces_is_in_one_split_only():
    assert not set(sets.TYPEFACES["train"]) & set(sets.TYPEFACES["val"])


def test_stamps_are_small_and_have_a_white_background(tmp_path):
    for place in sets.STAMPS.values():
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        for number in range(4):
            Image.new("RGBA", (90, 30 + number)).save(tmp_path / place / f"{number}.png")
    made = list(sets.stamps(tmp_path))
    assert {name for _, name, _ in made} == set(sets.STAMPS)
    assert {split for split, _, _ in made} == {"train", "val"}
    assert all(p.getpixel((0, 0)) == (255, 255, 255) and max(p.size) == 64 for _, _, p in made)


def test_a_missing_package_is_named_with_its_pip_command():
    with pytest.raises(SystemExit, match="no_such_package is not installed: pip install"):
        sets.package_folder("no_such_package")


def test_the_search_draws_existing_flags_and_is_repeatable():
    assert set(search.CHOICES) <= set(vars(Config()))
    assert search.drawn(3) == search.drawn(3) != search.drawn(4)
    made = list(search.trials(["a", "b"], 2))
    assert [trial.data for trial in made] == ["a", "b", "a", "b"]
    assert made[0].flags == made[1].flags


def test_the_plain_command_has_no_flags_but_data_folder_and_seed(tmp_path):
    made = contestants.command(Trial("a", "plain", 3), tmp_path, tmp_path / "run", "python")
    given = ["--data_dir", str(tmp_path), "--model_dir", str(tmp_path / "run"), "--seed", "3"]
    assert made[1:] == ["main.py", *given]


def test_other_programs_get_the_image_size_and_epochs_of_the_plain_command(tmp_path):
    sets.write(tmp_path, [("train", "a", Image.new("L", (40, 40)))] * 200)
    assert contestants.side_and_epochs(tmp_path, "keras") == (96, 80)
    assert contestants.side_and_epochs(tmp_path, "timm") == (96, contestants.TIMM_EPOCHS)
    sets.write(tmp_path, [("train", "a", Image.new("L", (100, 120)))] * 201)
    assert contestants.side_and_epochs(tmp_path, "timm") == (112, 77)


def test_an_interrupted_command_continues_without_repeating_a_trial(tmp_path, monkeypatch):
    results = tmp_path / "results.jsonl"
    results.write_text(json.dumps(line("digits20", "plain", 1, 90.0)) + "\n")
    ran = []

    def measured(trial, folder, run, timm):
        ran.append(trial.key)
        return line(*trial.key[:3], 91.0) | {"seconds": 1}

    monkeypatch.setattr(first_run, "measured", measured)
    arguments = ["x", "run", "--sets", "digits20", "--contestants", "plain", "--seeds", "1", "2"]
    monkeypatch.setattr("sys.argv", [*arguments, "--results", str(results), "--out", str(tmp_path)])
    first_run.main()
    first_run.main()
    assert [key[2] for key in ran] == [2]
    assert len(first_run.read(results)) == 2


def test_the_table_names_its_seeds_and_the_number_of_trials():
    found = [line("a", "plain", seed, top1) for seed, top1 in ((1, 90.0), (2, 92.0))]
    found += [line("a", "search", 1, 99.0, lr_init=1), line("a", "keras", 1, 50.0)]
    found += [line("a", "search", seed, 95.0, lr_init=2) for seed in (1, 2)]
    text = table.markdown(found, ["a"], MACHINE)
    row = "| a | – | 91.0 (90.0 to 92.0); seed 1, 2 | 95.0 (95.0 to 95.0); seed 1, 2; trials: 2"
    assert f"{row} | 50.0; seed 1 | – |" in text
    assert "- a: `--lr_init 2`" in text
    assert [t.seed for t in search.best_again(["a"], [3], found)] == [3]
    assert next(search.best_again(["a"], [3], found)).flags == {"lr_init": 1}


def test_the_page_has_the_marks_for_its_table(tmp_path):
    page = tmp_path / "first_run.md"
    page.write_text(table.PAGE.read_text())
    table.write("| a |\n", page)
    assert "| a |" in page.read_text()
