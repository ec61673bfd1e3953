"""Copies the package into the layout of a wheel, for the API reference; a hook of MkDocs.

In a checkout, `convoy.model` is the folder `model/` (convoy/__init__.py). Griffe does not run code,
so it cannot find that. It reads build/api/convoy, where this puts the Python files.
"""

import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def on_config(config: Any) -> None:  # noqa: ARG001 — MkDocs gives it
    """Makes build/api/convoy, the package's path in mkdocs.yml, before MkDocs builds."""
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
