"""MkDocs calls this before it builds: the package as a wheel has it, for the API reference.

In a checkout `convoy.model` is the folder `model/` (convoy/__init__.py), which Griffe, as it runs
no code, does not know. So build/api/convoy gets a copy of the Python files.
"""

import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def on_config(config: Any) -> None:
    """Makes build/api/convoy, which mkdocs.yml names as the place of the package."""
    package = ROOT / "build" / "api" / "convoy"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(ROOT / "convoy", package, ignore=_all_but_python)
    for name in ("dataloader", "model", "runtime", "utils"):
        shutil.copytree(ROOT / name, package / name, ignore=_all_but_python)


def _all_but_python(folder: str, names: list[str]) -> list[str]:
    place = Path(folder)
    return [n for n in names if not n.endswith(".py") and not (place / n).is_dir()]
