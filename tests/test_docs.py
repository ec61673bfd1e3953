"""The pages of docs/: links work, the menu has every page, and every mode has a page."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import markdown
import pytest
import yaml

from convoy.runtime.settings.modes import MODES

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
PAGE_OF = {
    "train_and_eval": "train.md",
    "train": "train.md",
    "lr_find": "train.md",
    "eval": "evaluate.md",
    "predict": "predict.md",
    "export": "export.md",
    "convert": "convert.md",
    "training_benchmark": "benchmark.md",
    "inference_benchmark": "benchmark.md",
    "list": "inspect.md",
    "summary": "inspect.md",
    "env": "inspect.md",
    "report": "reports.md",
}
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def in_menu(entry) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    values = entry.values() if isinstance(entry, dict) else entry
    return [page for value in values for page in in_menu(value)]


def rendered(page: Path) -> str:
    """Renders a page to HTML with MkDocs' extensions, so that links and anchors are the same."""
    return markdown.markdown(page.read_text(), extensions=["tables", "toc", "fenced_code"])


def test_the_menu_has_every_page_exactly_once():
    shown = in_menu(SITE["nav"])
    assert len(shown) == len(set(shown))
    records = set((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    pages = {str(page.relative_to(ROOT / "docs")) for page in set(PAGES) - records}
    assert set(shown) == pages, "edit nav in mkdocs.yml"


ROOT_PAGES = sorted(ROOT.glob("*.md"))


@pytest.mark.parametrize("page", [*PAGES, *ROOT_PAGES], ids=lambda page: page.name)
def test_every_link_has_a_target(page):
    targets = re.findall(r'(?:href|src)="([^"]+)"', rendered(page))
    for target in targets:
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists(), target
        if page.is_relative_to(ROOT / "docs"):  # the site contains docs/ only
            assert found.is_relative_to(ROOT / "docs"), target
        if anchor:
            assert f'id="{anchor}"' in rendered(found), target


def test_every_mode_is_in_the_index_and_has_a_page_that_shows_it():
    table = (ROOT / "docs" / "index.md").read_text().split("## Modes")[1].split("\n\n")[1]
    listed = [name for row in table.split("\n")[2:] for name in re.findall(r"`(\w+)`", row)]
    assert sorted(listed) == sorted(MODES)
    assert set(PAGE_OF) == set(MODES)
    for mode, page in PAGE_OF.items():
        assert f"--mode {mode}" in (ROOT / "docs" / page).read_text(), mode


def test_changelog_and_citation_have_the_version_of_pyproject():
    (version,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest[1] == version
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version
    assert f"({citation['date-released']})" in (ROOT / "CHANGELOG.md").read_text()


def test_ci_calls_existing_make_targets_and_tests_every_supported_python():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    runs = workflow["jobs"]["make"]["strategy"]["matrix"]["include"]
    assert {run["target"] for run in runs} <= targets
    pythons = {run["python"] for run in runs if run["target"] == "test"}
    assert pythons == {"3.10", "3.11", "3.12", "3.13"}  # the versions that pyproject.toml supports
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_the_index_lists_every_decision_record():
    done = subprocess.run(
        [sys.executable, "-c", "import decisions_index; print(decisions_index.index(), end='')"],
        cwd=ROOT / "scripts",
        capture_output=True,
        text=True,
        check=True,
    )
    index = (ROOT / "docs" / "decisions" / "index.md").read_text()
    assert done.stdout == index, "run scripts/decisions_index.py"


def test_modules_named_in_the_upgrading_guide_exist():
    text = (ROOT / "docs" / "upgrading.md").read_text()
    now = re.findall(r"^\| `[\w.]+` \| `convoy\.([\w.]+)` \|$", text, re.M)
    assert len(now) > 30
    for module in now:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file(), module


def test_the_architecture_picture_has_every_module_and_package():
    """Arrows change with each import and are not checked; scripts/architecture.py draws them."""
    picture = (ROOT / "docs" / "images" / "architecture.svg").read_text()
    shown = re.findall(r'text-anchor="middle">(\w+)</text>', picture)
    rooms = []
    for folder in ("runtime", "model", "dataloader", "utils"):
        inside = [path for path in (ROOT / folder).iterdir() if not path.name.startswith("_")]
        rooms += [path.name for path in inside if (path / "__init__.py").is_file()]
        rooms += [path.stem for path in inside if path.suffix == ".py"]
    assert sorted(shown) == sorted(rooms), "run scripts/architecture.py"


def test_speedups_in_the_readme_equal_the_measured_ones():
    """Compares them with docs/performance.md: B0 on AMX, and input with AutoAugment on Zen 4."""
    page = (ROOT / "docs" / "performance.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    cells = {row[0]: row for row in rows}
    (fit,) = (row for name, row in cells.items() if "÷ Keras' fit, float32: B0" in name)
    (half,) = (row for name, row in cells.items() if "bfloat16: B0" in name)
    (torch,) = (row for name, row in cells.items() if "PyTorch's best: B0" in name)
    (pillow,) = (row for name, row in cells.items() if "torchvision on Pillow" in name)
    measured = [float(row[3]) for row in (fit, half, torch)] + [float(pillow[2])]
    readme = " ".join((ROOT / "README.md").read_text().split())
    (said,) = re.findall(
        r"does ([\d.]+) times the images of `keras.fit` in float32, ([\d.]+) times in bfloat16,"
        r" and ([\d.]+) times those of timm's best setting. Input with AutoAugment does ([\d.]+)",
        readme,
    )
    assert [float(figure) for figure in said] == [round(figure + 1e-9, 1) for figure in measured]


def test_every_missed_goal_is_in_the_table_of_goals():
    overview = (ROOT / "docs" / "performance.md").read_text()
    missed = re.findall(r"^\| .*\| (?:\*\*missed\*\*.*|not settled.*) \|$", overview, re.M)
    figures = {figure for row in missed for figure in re.findall(r" (\d+\.\d+) ", row)}
    for page in sorted((ROOT / "docs" / "performance").glob("*.md")):
        for figure in re.findall(r"\*\*([\d.]+) \(.*: missed", page.read_text()):
            assert f"{float(figure):.2f}" in figures, (page.name, figure)


@pytest.mark.parametrize("page", [*PAGES, *ROOT_PAGES], ids=lambda page: page.name)
def test_text_of_pages_is_wrapped(page):
    """Tables, code and unbreakable words may be longer."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.S | re.M)
    text = re.sub(r"^( {4}|\||<).*$", "", text, flags=re.M)
    for line in text.splitlines():
        width = sum(len(word) + 1 for word in line.split() if len(word) < 60)
        assert width <= 130, line
