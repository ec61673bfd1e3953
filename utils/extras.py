"""Says how to install packages that are missing: optional ones, and those that every mode needs.

Imports no other packages: it must run in a Python that lacks them.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from convoy.utils.installed import faults, installed_of

EXTRA_OF = {
    "tensorflow": "cpu",
    "keras": "cpu",
    "safetensors": "cpu",
    "tensorboard": "cpu",
    "matplotlib": "report",
    "pyarrow": "parquet",
    "onnx": "export",
    "onnxruntime": "predict",
    "tf2onnx": "export",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "nvidia": "dali",
    "tensorflow_datasets": "tfds",
    "sklearn": "demo",
}
"""Maps a module to the extra (pyproject.toml) that brings it."""

DALI = {12: "nvidia-dali-cuda120", 13: "nvidia-dali-cuda130"}
"""DALI's packages by their CUDA. Either will do, but not both, because their files have the same
names."""

_GPU = " (gpu instead of cpu where there is an NVIDIA GPU)"
_CHECKOUT = Path(__file__).resolve().parent.parent
_ENVIRONMENT = _CHECKOUT / ".venv"


def how_to_install(extra: str) -> str:
    """Returns the command that installs an extra; in a checkout, with the pinned versions."""
    if (_CHECKOUT / "constraints.txt").is_file():
        return f"pip install -c constraints.txt -e '.[{extra}]'"
    return f"pip install 'convoy[{extra}]'"


# Modules that every installation has, under their import names.
_REQUIRED = ("jinja2", "numpy", "PIL", "jsonargparse", "yaml", "rich", "markupsafe")


def missing_requirement(error: ModuleNotFoundError) -> str:
    """Says how to get a Python with the modules that every mode needs; "" for other modules.

    In a checkout this is its environment, which a new terminal has not entered.
    """
    module = (error.name or "").split(".")[0]
    outside = EXTRA_OF.get(module) == "cpu" and _ENVIRONMENT.exists() and not _entered()
    if module not in _REQUIRED and not outside:
        return missing_module(error)
    lacks = f"this Python ({sys.executable}) lacks the package {module}"
    if not (_CHECKOUT / "main.py").is_file():
        return f"{lacks}: install Convoy again, with what it requires"
    if _entered():
        return f"{lacks}: {mend()}"
    here = Path.cwd() == _CHECKOUT
    place = Path() if here else _CHECKOUT
    python, activate = place / ".venv/bin/python", place / ".venv/bin/activate"
    use = f"{python} {place / 'main.py'}, or source {activate}"
    if _ENVIRONMENT.exists():
        return f"{lacks}. Use Convoy's environment: {use}"
    return f"{lacks}. Run {_make_setup()} once, then {use}"


def _entered() -> bool:
    """Returns whether this Python is that of the checkout's environment."""
    return _ENVIRONMENT.exists() and os.path.samefile(sys.prefix, _ENVIRONMENT)


def _make_setup() -> str:
    return "make setup" if Path.cwd() == _CHECKOUT else f"make -C {_CHECKOUT} setup"


def mend() -> str:
    """Says how to complete an installation that was interrupted or changed."""
    if _entered():
        return f"run {_make_setup()}, which completes the installation"
    return f"install again with {how_to_install('cpu')} --force-reinstall{_GPU}"


def broken_installation(error: Exception) -> str:
    """Says what is wrong with this Python's packages when one fails to load.

    Args:
        error: what ended an import, or something else: then the answer is "".

    Returns:
        "" also if nothing is wrong with them.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    importing = any(
        frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") != "__main__"
        for frame in frames
    )
    if not (importing or isinstance(error, ImportError)):
        return ""
    try:
        missing, torn = faults(["convoy", *installed_of("tensorflow", "tensorflow-cpu")])
    except ImportError:
        return f"this Python ({sys.executable}) lacks the package packaging: {mend()}"
    found = [*torn, *missing]
    return f"{found[0]} in {sys.prefix}: {mend()}" if found else ""


def missing_module(error: ImportError) -> str:
    """Returns the message for a user who lacks a module; "" if it is not in `EXTRA_OF`."""
    module = (error.name or "").split(".")[0]
    if module not in EXTRA_OF:
        return ""
    extra = EXTRA_OF[module]
    remedy = how_to_install(extra)
    if extra == "cpu":
        remedy = mend() if _entered() else remedy + _GPU
    return f"the package {module} is not installed: {remedy}"
