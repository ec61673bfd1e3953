"""Makes the project one package, with `model`, `dataloader`, `runtime` and `utils` inside.

In a wheel these folders are inside `convoy/`. In a checkout they are beside it, where people look
for them, so this package also searches the checkout's root. All code imports `convoy.…`, so it
never imports a user's own `utils.py` or `model.py`.
"""

from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
if (_ROOT / "main.py").is_file() and (_ROOT / "runtime" / "runner.py").is_file():
    __path__.append(str(_ROOT))
