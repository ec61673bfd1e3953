"""Runs mypy on all code but tests and notebooks: `python scripts/check_types.py [mypy's options]`.

In a checkout the folders model/, dataloader/, runtime/ and utils/ lie beside convoy/, and
convoy/__init__.py finds them there at run time. mypy looks for them inside convoy/, so this script
links them into build/types/convoy, laid out as in a wheel, with the other code beside it. The
settings are in pyproject.toml.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "build" / "types"
ROOMS = ("model", "dataloader", "runtime", "utils")
BESIDE = ("benchmarks", "scripts", "main.py")
CODE = ("-p", "convoy", "-p", "benchmarks", "-p", "scripts", "-m", "main")


def main(options: list[str]) -> int:
    """Returns mypy's exit code."""
    link_code()
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    done = subprocess.run([*command, *CODE, *options], cwd=PLACE, stdout=subprocess.PIPE, text=True)
    for line in done.stdout.splitlines():
        print(as_in_checkout(line))
    return done.returncode


def link_code() -> None:
    """Fills build/types with links: in convoy/, to its files and to the folders of the package."""
    package = PLACE / "convoy"
    package.mkdir(parents=True, exist_ok=True)
    for old in (*package.iterdir(), *(PLACE / name for name in BESIDE)):
        old.unlink(missing_ok=True)
    for name in BESIDE:
        (PLACE / name).symlink_to(ROOT / name)
    for file in (ROOT / "convoy").iterdir():
        if file.name != "__pycache__":
            (package / file.name).symlink_to(file)
    for room in ROOMS:
        (package / room).symlink_to(ROOT / room, target_is_directory=True)


def as_in_checkout(line: str) -> str:
    """Turns `convoy/utils/text.py:3: error` into `utils/text.py:3: error`, where the file is."""
    path = line.removeprefix("convoy/")
    return path if path.startswith(tuple(f"{room}/" for room in ROOMS)) else line


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
