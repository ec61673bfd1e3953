"""Tells what is wrong with the installed packages: missing, in part, or of the wrong version.

It must run in a Python whose installation was interrupted, so it imports the standard library and
`packaging`, of which pip has a copy. `scripts/setup.sh` runs it, as `python -m
convoy.utils.installed`.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any


def faults(
    wanted: Iterable[str], pins: Mapping[str, str] | None = None, path: list[str] | None = None
) -> tuple[list[str], dict[str, Path]]:
    """Looks at the wanted packages and at all that they require.

    Args:
        wanted: requirements, such as `convoy[cpu]`.
        pins: required versions by normalised name; of packages that are not wanted, none is looked
            at.
        path: folders in which packages are installed; None: those of this Python.

    Returns:
        Texts about packages that are missing or of a wrong version, which pip can mend, and texts
        about packages that are installed in part, which pip takes for installed because of the
        folder that goes with the text.
    """
    wrong: dict[str, None] = {}
    torn: dict[str, Path] = {}
    queue: list[Any] = [_requirement(text) for text in wanted]
    seen: set[tuple[str, str]] = set()
    while queue:
        needed = queue.pop()
        name, extras = normalised(needed.name), ",".join(sorted(needed.extras))
        found = next(iter(metadata.distributions(name=name, path=path or sys.path)), None)
        if found is None:
            wrong[f"{name} is missing"] = None
            continue
        if not needed.specifier.contains(found.version, prereleases=True):
            wrong[f"{name} {found.version} is installed, and {needed} is needed"] = None
        pin = (pins or {}).get(name)
        # As pip compares: 2.13.0+cpu, a build of PyTorch's own index, is 2.13.0.
        if pin and not _requirement(f"{name}=={pin}").specifier.contains(found.version):
            wrong[f"{name} {found.version} is installed, and {pin} is pinned"] = None
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        if not extras and _is_torn(found):
            torn[f"{name} {found.version} is installed in part"] = _description(found)
        for requirement in map(_requirement, found.requires or ()):
            marker = requirement.marker
            if not marker or any(marker.evaluate({"extra": e}) for e in ("", *needed.extras)):
                queue.append(requirement)
        if extras:
            queue.append(_requirement(needed.name))
    return list(wrong), torn


def wrong_version(names: Iterable[str]) -> str:
    """Returns a text about the first of these packages that Convoy does not work with; "" if none.

    Packages that are not installed under these names count as right.
    """
    try:
        requires = metadata.requires("convoy") or ()
    except metadata.PackageNotFoundError:  # a checkout in an environment of the user's
        return ""
    for text in requires:
        needed = _requirement(text)
        if normalised(needed.name) not in names:
            continue
        try:
            version = metadata.version(needed.name)
        except metadata.PackageNotFoundError:
            continue
        if not needed.specifier.contains(version, prereleases=True):
            return f"{needed.name} {version} is installed, and {needed.specifier} is needed"
    return ""


def installed_of(*names: str) -> list[str]:
    """Returns those of the packages that are installed."""
    return [name for name in names if any(metadata.distributions(name=name))]


def normalised(name: str) -> str:
    """Returns a package's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(file: Path) -> dict[str, str]:
    """Reads a file of constraints, `name==version ; marker` on each line."""
    pins = {}
    for line in file.read_text().splitlines():
        if "==" not in line or line.startswith("#"):
            continue
        requirement = _requirement(line)
        if requirement.marker is None or requirement.marker.evaluate():
            (pin,) = requirement.specifier
            pins[normalised(requirement.name)] = pin.version
    return pins


def _requirement(text: str) -> Any:
    try:
        from packaging import requirements
    except ImportError:
        from pip._vendor.packaging import requirements  # type: ignore[no-redef]
    return requirements.Requirement(text)


def _is_torn(found: metadata.Distribution) -> bool:
    """Returns whether one of the package's files is missing or has another size.

    Compiled Python files do not count, because people delete them, nor names with a comma or a
    quote.
    """
    folder = str(found.locate_file(""))
    for row in (found.read_text("RECORD") or "").splitlines():
        name, _, size = row.rsplit(",", 2)  # not through csv, which takes ten times as long
        if name.startswith('"') or name.endswith(".pyc"):
            continue
        try:
            there = os.stat(os.path.join(folder, name)).st_size
        except OSError:
            return True
        if size and int(size) != there and not _is_of_another(name, there, folder):
            return True
    return False


def _is_of_another(name: str, size: int, folder: str) -> bool:
    """Returns whether another package in the folder has a file of this name and size.

    Packages may share a file, as some of NVIDIA's share `nvidia/__init__.py`. pip then keeps that
    of the package it installed last.
    """
    row = re.compile(rf"^{re.escape(name)},[^,]*,{size}$", re.MULTILINE)
    others = metadata.distributions(path=[folder])
    return any(row.search(other.read_text("RECORD") or "") for other in others)


def _description(found: metadata.Distribution) -> Path:
    """Returns the folder by which pip knows that a package is installed."""
    (name,) = {f.parts[0] for f in found.files or () if f.parts[0].endswith(".dist-info")}
    return Path(str(found.locate_file(name)))


def main(argv: Sequence[str]) -> int:
    """Prints what is wrong with the packages of `PINS WANTED …`, for `scripts/setup.sh`.

    With `--forget` first, those that are installed in part count as missing for pip from then on.

    Returns:
        0: nothing is wrong; 1: pip can mend it; 2: pip itself is not whole.
    """
    forget, (file, *wanted) = argv[0] == "--forget", argv[argv[0] == "--forget" :]
    try:
        wrong, torn = faults(["pip", *wanted], read_pins(Path(file)))
        import pip._internal.cli.main  # noqa: F401 — it may lack parts of itself
    except (ImportError, AttributeError, SyntaxError) as error:
        print(f"pip does not load: {error}")
        return 2
    print("\n".join([*torn, *wrong]))
    if forget:
        for description in torn.values():
            shutil.rmtree(description)
    return 1 if torn or wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
