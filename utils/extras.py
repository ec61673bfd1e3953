"""Names the extra that brings an optional package, and says how to install it.

Imports nothing but the standard library: it must run in a Python that lacks the rest.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

EXTRA_OF = {
    "tensorflow": "cpu",
    "matplotlib": "report",
    "PIL": "report",
    "pyarrow": "parquet",
    "onnx": "export",
    "onnxruntime": "export",
    "tf2onnx": "export",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "nvidia": "dali",
    "tensorflow_datasets": "tfds",
    "sklearn": "demo",
}
"""Maps a module to the extra (pyproject.toml) that brings it."""

_CHECKOUT = Path(__file__).resolve().parent.parent
_ENVIRONMENT = _CHECKOUT / ".venv"


def how_to_install(extra: str) -> str:
    """Returns the command that installs an extra; in a checkout, with the pinned versions."""
    if (_CHECKOUT / "constraints.txt").is_file():
        return f"pip install -c constraints.txt -e '.[{extra}]'"
    return f"pip install 'convoy[{extra}]'"


# Modules that every installation has, under their import names.
_REQUIRED = (
    *("google_crc32c", "jinja2", "keras", "numpy", "jsonargparse", "yaml", "rich"),
    *("safetensors", "markupsafe"),
)


def missing_requirement(error: ModuleNotFoundError) -> str:
    """Says how to get a Python with the modules that every mode needs; "" for other modules.

    In a checkout this is its environment, which a new terminal has not entered.
    """
    module = (error.name or "").split(".")[0]
    entered = _ENVIRONMENT.exists() and os.path.samefile(sys.prefix, _ENVIRONMENT)
    outside = module == "tensorflow" and _ENVIRONMENT.exists() and not entered
    if module not in _REQUIRED and not outside:
        return missing_module(error)
    lacks = f"this Python ({sys.executable}) lacks the package {module}"
    if not (_CHECKOUT / "main.py").is_file():
        return f"{lacks}: install Convoy again, with what it requires"
    here = Path.cwd() == _CHECKOUT
    place = Path() if here else _CHECKOUT
    python, activate = place / ".venv/bin/python", place / ".venv/bin/activate"
    use = f"{python} {place / 'main.py'}, or source {activate}"
    if _ENVIRONMENT.exists():
        return f"{lacks}. Use Convoy's environment: {use}"
    make = "make setup" if here else f"make -C {_CHECKOUT} setup"
    return f"{lacks}. Run {make} once, then {use}"


def missing_module(error: ImportError) -> str:
    """Returns the message for a user who lacks a module; "" if it is not in `EXTRA_OF`."""
    module = (error.name or "").split(".")[0]
    if module not in EXTRA_OF:
        return ""
    extra = EXTRA_OF[module]
    choice = " (gpu instead of cpu where there is an NVIDIA GPU)" if extra == "cpu" else ""
    return f"the package {module} is not installed: {how_to_install(extra)}{choice}"
