"""Fixtures for the tests of the input pipeline."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.dataloader.packing import encoded, picture

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """Gives each test its own cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def native_ops():
    """The native operations; builds them if `make setup` has not."""
    from convoy.dataloader import native

    if not native.LIBRARY.path().exists():
        if not shutil.which(os.environ.get("CXX", "g++")):
            pytest.skip("no C++ compiler to build the native operations with")
        subprocess.run([ROOT / "scripts" / "build_native.sh"], check=True)
        native.LIBRARY.forget()
    loaded = native.load()
    assert loaded, native.status()
    return loaded


@pytest.fixture
def photos(tmp_path):
    """A data folder of two classes with 30 training and 5 validation images each."""
    for split, count in (("train", 30), ("val", 5)):
        for k, name in enumerate(("bee", "ant")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{i:02d}.jpg").write_bytes(encoded(picture(100 * k + i)))
    return tmp_path / "photos"


@pytest.fixture(scope="session")
def photo():
    """A smooth colour image of 60 x 40 pixels."""
    y, x = np.mgrid[:40, :60]
    return Image.fromarray(np.stack([x * 4, y * 6, 255 - x - y], -1).astype(np.uint8))
