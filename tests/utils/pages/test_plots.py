"""Plots in pages: colours, escaping, and accessibility."""

import re
import xml.etree.ElementTree as ET
from io import BytesIO
from pathlib import Path

import pytest

from convoy.utils.errors import ConfigError
from convoy.utils.pages import page, plots

TEMPLATES = Path(page.__file__).parent / "templates"
ODD = "<b onclick=x>&$x_1$ 猫"


def curves(**options):
    series = {ODD: ([0, 1, 2], [1.0, 0.1, 0.001]), "other": ([0, 1], [0.5, 0.4])}
    return plots.curves(ODD, series, xlabel="epoch", ylabel="loss", **options)


@pytest.mark.parametrize("log", [False, True])
def test_a_plot_uses_the_pages_colours_and_escapes_its_text(log):
    text = str(curves(log=log).svg())
    assert text.startswith("<svg ")
    assert "var(--c1)" in text
    assert "var(--c2)" in text
    assert not set(re.findall(r"#[0-9a-f]{6}\b", text)) & set(plots.COLOURS.values())
    root = ET.fromstring(text)
    words = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert ODD in words
    assert "loss" in words
    assert not any("$" in (word or "") for word in words if word != ODD)
    assert ODD in root.attrib["aria-label"]
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)


def test_plots_on_one_page_share_no_ids():
    def names(plot):
        return set(re.findall(r'\bid="([^"]*)"', str(plot.svg())))

    one, two = (
        names(curves()),
        names(plots.curves("two", {"a": ([1, 2], [3, 4])}, xlabel="", ylabel="")),
    )
    assert not one & two


def test_a_png_has_the_requested_size():
    from PIL import Image

    image = Image.open(BytesIO(curves(width=300, height=200).png(scale=2)))
    assert image.size == (600, 400)


def test_the_light_theme_of_pages_has_the_colours_of_the_plots():
    light = (TEMPLATES / "base.html.j2").read_text().split("@media")[0]
    for name, value in plots.COLOURS.items():
        assert f"--{name}: {value};" in light, name


def test_without_matplotlib_the_error_names_the_flag_and_pip_install(monkeypatch):
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"--report needs the package matplotlib: pip install"):
        plots.check_plots("--report")
