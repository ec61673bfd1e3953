"""Errors of writing files name the file, which the operating system's own errors do not."""

import resource
from pathlib import Path

import pytest
from jinja2 import DictLoader, Environment

from convoy.dataloader.prepare.shards import write_records
from convoy.utils.files import naming, write_atomically
from convoy.utils.pages.page import write_page

LONG = "x" * 10_000


@pytest.fixture
def short_files():
    """Makes it an error to write more than 1,000 bytes into a file, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def records(path):
    write_records(str(path.parent), path.name, [LONG.encode()])


def text(path):
    write_atomically(path, LONG)


@pytest.mark.parametrize("write", [records, text])
def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(short_files, tmp_path, write):
    path = tmp_path / "file"
    with pytest.raises(OSError, match=f"File too large: '{path}'"):
        write(path)
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_written_is_named(monkeypatch, short_files, tmp_path):
    templates = Environment(loader=DictLoader({"a": "{{ text }}"}))
    monkeypatch.setattr("convoy.utils.pages.page.environment", lambda: templates)
    with pytest.raises(OSError, match=f"File too large: '{tmp_path / 'page'}'"):
        write_page(tmp_path / "page", "a", text=LONG)


def test_an_error_that_names_a_file_keeps_that_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"), naming("another"):
        Path(tmp_path, "absent").read_bytes()
