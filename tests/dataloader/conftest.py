"""Shared by the tests of the input pipeline."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def native_ops():
    """The native operations, loaded; built if `make setup` has not done so."""
    from dataloader import native

    if not native.library_path().exists():
        if not shutil.which(os.environ.get("CXX", "g++")):
            pytest.skip("no C++ compiler to build the native operations with")
        subprocess.run([ROOT / "scripts" / "build_native.sh"], check=True)
        native._load.cache_clear()
    loaded = native.load()
    assert loaded, native.status()
    return loaded
