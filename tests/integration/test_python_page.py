"""The examples of docs/python.md run as written, except for a smaller model."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
SLOW = ("Keras' own training", "Runs")


def sections() -> dict[str, str]:
    """Returns the code of each section that has any."""
    parts = re.split(r"^## (.+)$", PAGE.read_text(), flags=re.M)[1:]
    code = {
        title: "\n".join(re.findall(r"```python\n(.*?)```", text, re.S))
        for title, text in zip(parts[::2], parts[1::2], strict=True)
    }
    return {title: text for title, text in code.items() if text}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with photos/ (32 training and 8 validation images) and new_photos/ (two)."""
    place = tmp_path_factory.mktemp("python")
    rng = np.random.default_rng(0)
    for folder, count in (
        *((f"photos/train/{name}", 16) for name in ("cat", "dog")),
        *((f"photos/val/{name}", 4) for name in ("cat", "dog")),
        ("new_photos", 2),
    ):
        (place / folder).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 255, (70, 80, 3), np.uint8)
            Image.fromarray(pixels).save(place / folder / f"{i}.jpg")
    return place


@pytest.mark.parametrize(
    "title",
    [pytest.param(t, marks=pytest.mark.slow) if t in SLOW else t for t in sections()],
)
def test_the_examples_of_a_section_run(title, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    code = sections()[title].replace('"efficientnet-b0"', '"efficientnet-test"')
    names: dict = {"__name__": "__main__"}
    exec(compile(code, str(PAGE), "exec"), names)
    if title == "Batches":
        assert names["train"].class_names == ["cat", "dog"]
        assert names["train"].steps_per_epoch == 4
    if title == "Keras' own training":
        assert names["net"].built  # the loaded model
    if title == "Mistakes":
        assert "cosine" in capsys.readouterr().out
    if title == "Runs":
        assert (place / "runs/photos/predictions.csv").read_text().count(".jpg") == 2


def test_all_five_sections_are_tested():
    assert set(SLOW) < set(sections())
    assert len(sections()) == 5
