"""Copies the package into the form of a wheel, for the API reference; MkDocs calls this before it
builds.

In a checkout, `convoy.model` is the folder `model/` (convoy/__init__.py). Griffe does not run code,
so it does not know this. So build/api/convoy gets a copy of the Python files.
"""

import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def on_config(config: Any) -> None:  # noqa: ARG001 — MkDocs gives it
    """Makes build/api/convoy, which mkdocs.yml names as the package's place."""
    copy_package(ROOT / "build" / "api" / "convoy")


def copy_package(package: Path) -> None:
    """Copies the Python files to where a wheel has them."""
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(ROOT / "convoy", package, ignore=_all_but_python)
    for name in ("dataloader", "model", "runtime", "utils"):
        shutil.copytree(ROOT / name, package / name, ignore=_all_but_python)


def _all_but_python(folder: str, names: list[str]) -> list[str]:
    place = Path(folder)
    return [n for n in names if not n.endswith(".py") and not (place / n).is_dir()]
