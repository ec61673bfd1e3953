"""The outputs of predictions: Parquet, one line of text, and a gallery for the browser."""

import re
import sys
from contextlib import ExitStack
from html.parser import HTMLParser

import pytest

from convoy.runtime.predict.open_outputs import open_outputs
from convoy.runtime.predict.outputs import (
    FORMATS,
    Labelled,
    Parquet,
    Prediction,
    one_line,
    predict_formats,
)
from convoy.runtime.settings.config import Config
from convoy.utils.errors import ConfigError

ODD = '<img src=x onerror="alert(1)">\'&amp;{{ 7*7 }}\n.jpg'


@pytest.fixture
def gallery(tmp_path):
    """Writes a gallery of results; returns the text of its pages."""
    from convoy.runtime.predict.gallery import Gallery

    def write(items, per_page=2000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("convoy.runtime.predict.gallery.PER_PAGE", per_page)
            with Gallery(tmp_path / "gallery.html", len(items), "a model", str(tmp_path)) as page:
                for item in items:
                    page.write(item)
        files = sorted(tmp_path.glob("gallery*.html"), key=lambda file: (len(file.name), file.name))
        return [file.read_text(encoding="utf-8") for file in files]

    return write


class Page(HTMLParser):
    """A parsed page: its elements, and the texts by tag."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts = [], {}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, text):
        self.texts.setdefault(self.elements[-1][0] if self.elements else "", []).append(text)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def labelled(name, *probabilities, error=None):
    predictions = [Prediction(f"class <{i}>", i, p) for i, p in enumerate(probabilities)]
    return Labelled(name, predictions, error, None if error else b"\xff\xd8 jpeg")


def test_the_gallery_shows_each_image_with_its_bars(gallery):
    (text,) = gallery([labelled("a.jpg", 0.75, 0.2), labelled("b.jpg", error="cut <short>")])
    page = Page(text)
    first, second = page.all("article")
    assert (first["data-class"], first["data-confidence"]) == ("class <0>", "0.75")
    assert second["data-class"] == "(unreadable)"
    assert [bar["style"] for bar in page.all("i")] == ["width:75.0%", "width:20.0%"]
    assert "cut <short>" in page.texts["p"]
    assert [o["value"] for o in page.all("option")][:3] == ["", "(unreadable)", "class <0>"]
    assert "2 images" in text


def test_the_gallery_escapes_names_and_loads_nothing(gallery):
    (text,) = gallery([labelled(ODD, 0.5)])
    page = Page(text)
    (card,) = page.all("article")
    assert card["data-name"].endswith(ODD.replace("\n", "\\n"))
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.all("img"))
    assert len(page.all("script")) == 1
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"base64,[\w+/=]*", "", text))
    assert not page.all("link")
    assert any("default-src 'none'" in meta.get("content", "") for meta in page.all("meta"))


def test_the_gallery_takes_names_that_are_not_utf_8(gallery):
    (text,) = gallery([labelled("caf\udce9.jpg", 0.5)])
    assert "caf\\xe9.jpg" in text


def test_a_long_gallery_has_pages_and_removes_those_of_an_earlier_run(gallery):
    pages = gallery([labelled(f"{i}.jpg", 0.5) for i in range(5)], per_page=2)
    assert [page.count("<article") for page in pages] == [2, 2, 1]
    assert "5 images, 3 to 4 on this page" in pages[1]
    assert [link["href"] for link in Page(pages[1]).all("a")] == ["gallery.html", "gallery-3.html"]
    assert len(gallery([labelled("1.jpg", 0.5)], per_page=2)) == 1


def test_parquet_keeps_types_and_nulls(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    with Parquet(tmp_path / "p.parquet", 2) as file:
        file.write(labelled(ODD, 0.75, 0.25))
        file.write(labelled("b\udce9.jpg", error="cut \udce9"))
    rows = parquet.read_table(tmp_path / "p.parquet").to_pylist()
    assert rows[0] == {
        **{"path": ODD, "class_1": "class <0>", "index_1": 0, "probability_1": 0.75},
        **{"class_2": "class <1>", "index_2": 1, "probability_2": 0.25, "error": None},
    }
    assert (rows[1]["path"], rows[1]["class_1"]) == ("b\\udce9.jpg", None)
    assert rows[1]["error"] == "cut \\udce9"


def test_a_format_whose_package_is_missing_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr("convoy.runtime.predict.outputs.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package pyarrow: pip install .*parquet"):
        predict_formats("parquet")
    assert predict_formats("table, csv") == ["table", "csv"]
    assert predict_formats(Config().predict_formats) == list(FORMATS[:3])


def test_the_text_of_a_result_is_one_line_even_with_line_breaks():
    assert one_line(labelled("a\nb.jpg", 0.5)) == "a\\nb.jpg: class <0> 50.0%"
    assert one_line(labelled("\udce9.jpg", error="a\nb")) == "\\xe9.jpg: unreadable: a\\nb"
    assert one_line(Labelled("a.jpg")) == "a.jpg: unsure"


@pytest.mark.parametrize(
    ("output", "files"),
    [
        (None, ["predictions.csv", "predictions.jsonl"]),
        ("res", ["res.csv", "res.jsonl"]),
        ("res.csv", ["res.csv", "res.jsonl"]),
        ("res.JSONL", ["res.csv", "res.jsonl"]),
        ("res.v2", ["res.v2.csv", "res.v2.jsonl"]),
        (".", ["predictions.csv", "predictions.jsonl"]),
    ],
)
def test_output_names_do_not_double_their_ending_and_report_replaced_files(tmp_path, output, files):
    config = Config(
        model_dir=str(tmp_path),
        predict_formats="jsonl,csv",
        output=output and str(tmp_path / output),
        predict_dir="x",
    )
    for again in (False, True):
        with ExitStack() as stack:
            outputs = open_outputs(stack, config, 1, 1, "")
        assert [o.replaces for o in outputs] == [again, again]
    assert sorted(path.name for path in tmp_path.iterdir()) == files
