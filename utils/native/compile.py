"""Compiles the native operations: `python -m convoy.utils.native.compile`.

`scripts/build_native.sh` calls this in a checkout. An installed package has no script, so the first
program that wants the operations builds them, once for each version of TensorFlow. CXX names the
compiler, CXXFLAGS more of its flags. Importing this does not import TensorFlow.
"""

from __future__ import annotations

import fcntl
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from convoy.utils.native import library_path, tensorflow_folder, uses_tensorflow

logger = logging.getLogger("convoy.native")

ROOT = Path(__file__).resolve().parents[2]
"""What includes are relative to: a checkout's root, or the package in site-packages."""
FOLDERS = (
    ROOT / "dataloader" / "native",
    ROOT / "dataloader" / "plain" / "native",
    ROOT / "model" / "native",
)
CHECKOUT = (ROOT / "main.py").is_file()
SCRIPT = "scripts/build_native.sh builds"
_FLAGS = (
    *("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fPIC"),
    *("-fvisibility=hidden", "-Wall", "-Wextra"),
)


class BuildError(Exception):
    """The compiler failed; the text is what it said."""


class _Unit(NamedTuple):
    """A file to compile."""

    source: Path
    name: str
    flags: tuple[str, ...]


def compiler() -> str:
    """The C++ compiler's path; "" if there is none."""
    return shutil.which(os.environ.get("CXX", "g++")) or ""


def absent() -> str:
    """What to say of a library that is not built yet."""
    if CHECKOUT:
        return f"not built for this TensorFlow and source ({SCRIPT})"
    if not compiler():
        name = os.environ.get("CXX", "g++")
        return f"not built, as there is no C++ compiler ({name}); a run with one builds them"
    return "not built yet; the first run that needs them does it, in about half a minute"


def build_on_first_use(library: Path) -> str:
    """Builds the library of an installed package, unless it cannot be or was tried in vain.

    Returns:
        "" if it is there now; else what to say.
    """
    if CHECKOUT or not compiler():
        return absent()
    (folder,) = (folder for folder in FOLDERS if library_path(folder) == library)
    failed = library.with_suffix(".failed")
    try:
        library.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(library.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # other processes of this host wait, and find it
            if not library.exists() and not _tried(failed):
                what = "for this TensorFlow" if uses_tensorflow(folder) else "of the input"
                logger.info("building native operations %s, once: %s", what, library)
                build(folder, library)
    except BuildError as error:
        failed.write_text(f"{made_by()}\n{error}\n")
    except OSError as error:
        return f"not built: {error}"
    return "" if library.exists() else f"not built: the compiler failed, see {failed}"


def _tried(failed: Path) -> bool:
    return failed.exists() and failed.read_text().splitlines()[0] == made_by()


def made_by() -> str:
    """The compiler, its flags and the processor: what a library depends on besides its sources."""
    done = subprocess.run([compiler(), "--version"], capture_output=True, text=True)
    version = (done.stdout + done.stderr).splitlines()[:1]
    return " ".join([*version, platform.machine(), os.environ.get("CXXFLAGS", "")]).strip()


def build(folder: Path, library: Path) -> None:
    """Compiles a folder's sources; the library is there whole, or not at all.

    Raises:
        BuildError: the compiler failed.
    """
    tensorflow = tensorflow_folder() if uses_tensorflow(folder) else None
    with tempfile.TemporaryDirectory(prefix="convoy-native.") as place:
        units = list(_units(folder))
        objects = [Path(place, f"{unit.name}.o") for unit in units]
        include = [f"-I{ROOT}"]
        link = ["-pthread"]
        if tensorflow:
            include += ["-isystem", str(tensorflow / "include")]
            link += [f"-L{tensorflow}", "-l:libtensorflow_framework.so.2"]
        more = shlex.split(os.environ.get("CXXFLAGS", ""))
        commands = [
            [*_FLAGS, *more, *include, *unit.flags, "-c", str(unit.source), "-o", str(target)]
            for unit, target in zip(units, objects, strict=True)
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(_compile, commands))
        # Made beside its place and renamed: a process that starts now sees none or all of it.
        fresh = library.with_name(f"build.{os.getpid()}")
        try:
            _compile(["-shared", *map(str, objects), "-o", str(fresh), *link])
            fresh.chmod(0o755)
            fresh.replace(library)
        finally:
            fresh.unlink(missing_ok=True)
    library.with_suffix(".txt").write_text(f"{made_by()}\n")
    for old in library.parent.glob("convoy-*"):
        if old.stem != library.stem and library.parent == folder:
            old.unlink()


def _units(folder: Path) -> Iterator[_Unit]:
    if not (folder / "level.cc").exists():
        for source in sorted(folder.glob("*.cc")):
            # Contracting a * b + c would round once less than TensorFlow does, and change bytes.
            yield _Unit(source, source.stem, ("-ffp-contract=off",))
        return
    for name in ("ops", "pool", "levels"):
        yield _Unit(folder / f"{name}.cc", name, ())
    # The kernels once for each level of instructions; which runs is chosen when the library is
    # loaded. The baseline stays in front: of what several objects hold, the first is taken.
    for level in ("baseline", *(("v3", "v4", "v4bf16") if platform.machine() == "x86_64" else ())):
        flags = [f"-DCONVOY_LEVEL={level}", "-Wno-psabi"]
        if level != "baseline":
            flags += [f"-march=x86-64-{level.removesuffix('bf16')}", "-mprefer-vector-width=512"]
        if level.endswith("bf16"):
            flags.append("-mavx512bf16")
        yield _Unit(folder / "level.cc", level, tuple(flags))


def _compile(arguments: list[str]) -> None:
    done = subprocess.run([compiler(), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise BuildError(done.stderr.strip() or f"exit code {done.returncode}")
    sys.stderr.write(done.stderr)  # warnings


def main() -> int:
    """Builds what is not there yet, or was made by another compiler."""
    if not compiler():
        print(f"no C++ compiler ({os.environ.get('CXX', 'g++')})", file=sys.stderr)
        return 1
    try:
        for folder in FOLDERS:
            library = library_path(folder)
            note = library.with_suffix(".txt")
            if not (library.exists() and note.exists() and note.read_text().strip() == made_by()):
                library.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                build(folder, library)
    except (BuildError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
