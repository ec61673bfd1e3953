"""Written files: errors name the file, as the system's own do not; modes follow the umask."""

import os
import resource
import stat
from pathlib import Path

import numpy as np
import pytest
from jinja2 import DictLoader, Environment
from safetensors import SafetensorError

from convoy.dataloader.prepare.shards import write_records
from convoy.utils.files import naming, save_tensors, write_atomically
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


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_tensors_are_as_readable_as_the_umask_says(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        save_tensors({"a": np.zeros(2)}, tmp_path / "a.safetensors", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == mode


def test_tensors_that_cannot_be_written_leave_no_file(tmp_path):
    with pytest.raises(SafetensorError):
        save_tensors({"a": np.array(["text"])}, tmp_path / "a.safetensors", {})
    assert not list(tmp_path.iterdir())


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    (tmp_path / "card.md").mkdir()
    with pytest.raises(IsADirectoryError, match=r"'[^']*/card\.md'$"):
        write_atomically(tmp_path / "card.md", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["card.md"]
