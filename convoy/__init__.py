"""Convoy's one package: `convoy.model`, `convoy.dataloader`, `convoy.runtime`, `convoy.utils`.

A wheel holds these folders inside `convoy/`. In a checkout they lie beside it, where people look
for them, so the checkout's root is added to the places where this package is searched for. All code
imports `convoy.…`, and so never meets a `utils.py` or `model.py` of the user's own.
"""

from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
if (_ROOT / "main.py").is_file() and (_ROOT / "runtime" / "runner.py").is_file():
    __path__.append(str(_ROOT))
