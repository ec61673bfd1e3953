"""The program accepts every command in README.md and docs/.

The real parsers read the commands on small data, up to the check of the data. Commands of other
programs are only compared with a list.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image

from convoy.dataloader.prepare.flags import make_parser as prepare_parser
from convoy.model import get_arch
from convoy.runtime.command_line.cli import parse
from convoy.runtime.command_line.parser import build_parser
from convoy.runtime.settings import recipes
from convoy.runtime.settings.other_names import SAME
from tests.onnx_bytes import metadata, network
from tests.weight_file import write_timm

ROOT = Path(__file__).parents[1]


def load_documented():
    spec = spec_from_file_location("documented", ROOT / "tests" / "documented.py")
    module = module_from_spec(spec)
    sys.modules["documented"] = module
    spec.loader.exec_module(module)
    return module


documented = load_documented()
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
EXTRAS = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.M))
LAUNCHERS = ("horovodrun", "mpirun", "srun", "sbatch")
# Other programs, and the first line of a script.
OTHERS = ("source", "cat", "printf", "tensorflow_model_server", "#!/bin/sh", "pip", "kubectl")
# Flags of other programs, by page.
FOREIGN = {
    "compared.md": {"recovery-interval"},
    "decisions/046-srun-kill-on-bad-exit.md": {"kill-on-bad-exit"},
    "elastic.md": {"network-interface", "blacklist-cooldown-range", "reset-limit", "min-np",
                   "elastic-timeout"},
    "launch.md": {"container-image", "gres", "account", "signal", "mpi", "network-interfaces",
                  "network", "device"},
    "notes/2026-11-cpu-training.md": {"entries", "rounds"},
    "notes/2026-11-inference.md": {"entries", "rounds"},
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory, trained):
    """A folder with the files that the pages mention: photos/, flowers/, runs/ and so on."""
    place = tmp_path_factory.mktemp("pages")
    for folder in ("photos/train/cat", "photos/train/dog", "photos/val/cat", "photos/val/dog",
                   "new_photos"):  # fmt: skip
        (place / folder).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(place / folder / "1.jpg")
    for name in ("rose", "tulip"):  # not split into train and val
        (place / "flowers" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (40, 40)).save(place / "flowers" / name / f"{i}.jpg")
    shutil.copy(place / "new_photos/1.jpg", place / "photo.jpg")
    for run in ("photos", "digits", "head", "other", "a", "b", "c"):
        shutil.copytree(trained.model_dir, place / "runs" / run)
    checkpoints = place / "runs/photos/checkpoints"
    first = min(path.name for path in checkpoints.glob("step-*"))
    best = json.loads((checkpoints / "best.json").read_text())
    # Pages name best and last beside each other: make them two different checkpoints.
    (checkpoints / "best.json").write_text(json.dumps(best | {"checkpoint": first}))
    shutil.copytree(place / "photos", place / "digits")
    (place / "model-int8.onnx").write_bytes(network(np.zeros((3, 2)), about=metadata()))
    # The program recognises it by its content.
    write_timm(place / "resnet50.pth", get_arch("resnet50"))
    (place / "weights").mkdir()  # the pages install weights here
    lite = place / "weights" / "efficientnet_lite0.safetensors"
    write_timm(lite, get_arch("efficientnet-lite0"), classes=1000)
    (place / "configs").symlink_to(ROOT / "configs")
    return place


@pytest.fixture
def program(place, monkeypatch, tmp_path):
    """A function that parses a main.py command line in that folder."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("CONVOY_WEIGHTS", str(place / "weights"))
    here = SimpleNamespace()
    for module in ("trackers.workers", "export.formats", "predict.outputs"):
        monkeypatch.setattr(f"convoy.runtime.{module}.find_spec", lambda name: here)
    monkeypatch.setattr("convoy.runtime.settings.input_backend._installed", lambda name: True)
    monkeypatch.setattr("convoy.runtime.settings.input_backend.visible_gpus", lambda: 1)

    def read(words):
        words = [re.sub(r"^/data(/imagenet)?$", str(place / "photos"), word) for word in words]
        training = "--mode" not in words or words[words.index("--mode") + 1] in ("train",)
        if training and "--model_dir" in words and "--resume_checkpoint" not in words:
            words[words.index("--model_dir") + 1] = str(tmp_path / "new")
        if "runs/digits" in words or "runs/head" in words:
            # The architecture of the run that was copied there.
            words += ["--arch", "efficientnet-test"]
        return parse(words)

    return read


def without_surroundings(words):
    """Removes variables and a launcher in front of a command."""
    while re.match(r"\w+=", words[0]):
        words = words[1:]
    if words[0] in LAUNCHERS:
        mains = [i for i, word in enumerate(words) if word.endswith("main.py")]
        subs = [i for i, word in enumerate(words) if word.endswith(".sub")]
        if not mains + subs:
            return []  # only the launcher's own flags, in running text
        words = words[mains[0] - 1 :] if mains else words[subs[0] :]
    return words


@pytest.mark.parametrize(
    "shown", documented.commands(), ids=lambda shown: f"{shown.page}: {shown.text[:60]}"
)
def test_the_program_accepts_every_documented_command(shown, program, capsys):
    if not shown.words:
        return
    for part in shown.text.split(" && "):
        words = without_surroundings(documented.Shown(shown.page, part).words)
        if words and "…" not in words:
            check(words, program)
    capsys.readouterr()


def check(words, program):
    first = words[0].removeprefix(".venv/bin/").removeprefix("/tmp/torch/bin/")
    if first in ("python", "python3"):
        check_python(words[1:], program)
    elif first == "convoy":
        check_main(words[1:], program)
    elif first == "make":
        assert words[1] in TARGETS, words
    elif first == "pip":
        named = re.findall(r"\[([\w,]+)\]", " ".join(words))
        assert set(",".join(named).split(",")) - {""} <= EXTRAS, words
    elif first == "bash" or first.startswith("scripts/") or first.endswith(".sub"):
        file = ROOT / (words[1] if first == "bash" else first)
        assert file.is_file(), file
        if "main.py" in words:
            check_python(words[words.index("main.py") :], program)
        else:
            text = file.read_text() + (ROOT / "scripts/multinode.sh").read_text()
            assert all(word in text for word in words if word.startswith("--")), words
    else:
        told = f"say in {__file__} how {words[0]} is checked; what is printed goes into ```text"
        assert words[0] in OTHERS, told


def check_python(words, program):
    if words[:1] == ["main.py"]:
        check_main(words[1:], program)
    elif words[:2] == ["-m", "runtime.recipes"]:
        assert recipes.main(words[2:]) == 0
    elif words[:2] == ["-m", "dataloader.prepare"]:
        if len(words) > 3:  # otherwise the text only mentions the command, without its flags
            prepare_parser().parse_args(words[2:])
    elif words[:2] == ["-m", "venv"]:
        return
    else:
        file = words[1].replace(".", "/") if words[0] == "-m" else words[0].removesuffix(".py")
        files = [f for f in (ROOT / f"{file}.py", ROOT / file / "__main__.py") if f.is_file()]
        assert files, words
        text = "".join(f.read_text() for f in files)
        assert all(f'"{w}"' in text for w in words if w.startswith("--")), words


def check_main(words, program):
    if words[:1] and words[0].startswith(("--help", "--print_completion")):
        with pytest.raises(SystemExit) as exit_:
            program(words)
        assert not exit_.value.code
    elif words and words != ["--nproc", "N"]:
        program(words)


# ---- flags in running text ----------------------------------------------------------------------

BASES = (
    "",
    "--mode eval --report --model_dir runs/photos",
    "--mode eval --model_dir runs/photos",
    "--mode predict --model_dir runs/photos --predict_dir new_photos",
    "--mode predict --model_dir runs/photos",
    "--mode export --model_dir runs/photos",
    "--mode convert --model_dir runs/photos --output new.keras",
    "--mode report --model_dir runs/photos",
    "--mode training_benchmark --model_dir runs/speed",
    "--mode inference_benchmark --model_dir runs/photos",
    "--augmenter_name randaugment --use_xla",
)


def options(parser):
    found = {option for action in parser._actions for option in action.option_strings}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= {o for command in action.choices.values() for o in options(command)}
    return found


def known():
    ours = options(build_parser()) | options(prepare_parser()) | {f"--{name}" for name in SAME}
    sources = [*(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "scripts").glob("*")]
    sources += ROOT.glob("*.sub")
    text = "".join(file.read_text() for file in sources if file.is_file())
    return ours | set(re.findall(r"--[a-z_]+", text))


KNOWN = known()


@pytest.mark.parametrize(
    "shown", documented.flags(), ids=lambda shown: f"{shown.page}: {shown.text[:60]}"
)
def test_every_flag_in_the_text_exists_and_accepts_its_value(shown, program, capsys):
    names = re.findall(r"(?<!\S)(--[\w-]+)", shown.text)
    others = {f"--{name}" for name in FOREIGN.get(shown.page, ())}
    # The left column of resnet50_flags.md has another program's flags.
    unknown = [name for name in names if name not in KNOWN | others]
    assert not unknown or shown.page == "resnet50_flags.md", unknown
    words = re.sub(r"\bM/P/H/X\b|…", "N", shown.text).split()
    values = [word for word in words if not word.startswith("-")]
    spoken = any(re.fullmatch(r"[A-Z]+|.*[,|]", value) for value in values)
    if unknown or others & set(names) or not values or spoken or "|" in shown.text:
        return
    if not set(names) <= options(build_parser()):
        return
    refused = []
    for base in BASES:
        try:
            convert = "convert" in (*base.split(), *words)  # convert takes no data
            start = [] if convert else ["--data_dir", "photos"]
            program([*start, "--model_dir", "x", *base.split(), *words])
        except SystemExit:
            refused.append(" ".join(capsys.readouterr().err.split()))
        else:
            return
    pytest.fail("\n".join(refused))


# ---- files and Python ---------------------------------------------------------------------------


def test_yaml_blocks_in_the_pages_are_valid_recipes(place, program):
    for shown in documented.blocks("yaml"):
        settings = yaml.safe_load(shown.text)
        file = place / "mine.yaml"
        file.write_text(shown.text)
        config = program(["--config", str(file), "--data_dir", "photos", "--model_dir", "x"])
        assert all(getattr(config, n) == v for n, v in settings.items() if n != "base")


def test_python_of_the_readme_runs(program, place, monkeypatch):
    """Training is replaced; docs/python.md and the tutorial have tests of their own."""
    monkeypatch.setattr("convoy.runtime.runner.Runner.run", lambda self: {"config": self.config})
    shutil.rmtree(place / "runs/photos")
    elsewhere = ("python.md", "tutorial.md")
    pages = [shown for shown in documented.blocks("python") if shown.page not in elsewhere]
    assert pages
    for shown in pages:
        names: dict = {}
        exec(compile(shown.text, shown.page, "exec"), names)
        assert names["figures"]["config"].data_dir == "photos"


def test_code_blocks_use_only_languages_that_these_tests_read():
    text = "".join(page.read_text() for page in documented.PAGES)
    assert set(re.findall(r"^```(\w+)", text, re.M)) <= {"bash", "python", "text", "yaml"}
    assert find_spec("convoy") is not None


@pytest.mark.parametrize("folder", ["dataloader", "model", "runtime", "utils"])
def test_messages_name_modules_as_convoy_modules(folder):
    """`python -m runtime.…` works in a checkout only; an installed package has `convoy.runtime`."""
    own = re.compile(r"python -m (dataloader|model|runtime|utils)\b")
    files = (ROOT / folder).rglob("*.py")
    assert [str(file) for file in files if own.search(file.read_text())] == []
