"""What files are: by their endings or, where these say nothing, by their first bytes.

Needs no TensorFlow.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

HEAD_BYTES = 32
READ = frozenset(("JPEG", "PNG", "GIF", "BMP", "WebP", "TIFF", "AVIF"))
"""The kinds that are decoded, in training, evaluation and predict alike."""

# As browsers and cameras save them; .mpo and .jps hold several JPEGs, the first of which is read.
PICTURE_ENDINGS = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp", ".mpo"),
        *(".jps", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff", ".avif"),
    }
)
# Pictures, but of kinds that are not read (unless their first bytes say that they are another).
UNREAD_ENDINGS = frozenset(
    {
        *(".heic", ".heif", ".jxl", ".jp2", ".j2k", ".jpx", ".jpf", ".psd", ".svg", ".ico"),
        *(".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".exr", ".hdr", ".dng", ".cr2", ".cr3"),
        *(".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".raw", ".xcf", ".eps"),
        *(".dcm", ".icns", ".qoi"),
    }
)
# Their first bytes are not looked at: a million of them may lie beside a million images.
_OTHER_ENDINGS = frozenset(
    {
        *(".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".md"),
        *(".html", ".htm", ".py", ".pyc", ".ipynb", ".npy", ".npz", ".mat", ".pkl", ".pt"),
        *(".pth", ".h5", ".hdf5", ".zip", ".gz", ".bz2", ".xz", ".tar", ".tgz", ".7z"),
        *(".rar", ".tfrecord", ".idx", ".db", ".mp4", ".avi", ".mov", ".mkv", ".webm"),
        *(".mp3", ".wav", ".pdf", ".doc", ".docx", ".xlsx", ".ini", ".log", ".lock"),
        *(".part", ".crdownload", ".tmp", ".lnk", ".url", ".sqlite"),
    }
)
# Folders of systems and network disks, lower case: bins, snapshots, and copies of the images.
_SYSTEM_FOLDERS = frozenset(
    {
        *("@eadir", "@tmp", "@__thumb", "@recycle", "@recently-snapshot", "@sharebin", "#recycle"),
        *("#snapshot", "~snapshot", "__macosx", "__pycache__", "lost+found", "$recycle.bin"),
        *("system volume information", "network trash folder", "temporary items", "found.000"),
    }
)
_THREADS = 16
_LONGEST_ENDING = 12


def kind_of(head: bytes) -> str | None:
    """The kind of a picture by its first bytes, of which 32 are enough; None if it is not one."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    # "BM" may begin a text, so the length of the second header is looked at, too.
    if head.startswith(b"BM") and head[14:18] in _BMP_HEADERS:
        return "BMP"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if head[4:8] == b"ftyp":
        brands = head[8:HEAD_BYTES]
        if b"avi" in brands:
            return "AVIF"
        return "HEIC" if any(mark in brands for mark in (b"hei", b"hev", b"mif1")) else None
    if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return "JPEG XL"
    if head.startswith((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")):
        return "JPEG 2000"
    return "PSD" if head.startswith(b"8BPS") else None


_BMP_HEADERS = tuple(n.to_bytes(4, "little") for n in (12, 16, 40, 52, 56, 64, 108, 124))


@dataclass
class Left:
    """What was left out of a folder: how many files and folders, by ending or reason.

    Attributes:
        files: ending (".txt") or reason ("hidden") -> number.
        folders: name, or reason -> number; what is in them is not counted.
        pictures: those of `files` that are pictures of a kind that is not read.
    """

    files: Counter[str] = field(default_factory=Counter)
    folders: Counter[str] = field(default_factory=Counter)
    pictures: Counter[str] = field(default_factory=Counter)

    def add(self, other: Left) -> None:
        """Counts the other's too."""
        self.files += other.files
        self.folders += other.folders
        self.pictures += other.pictures

    def text(self) -> str:
        """Such as "33 files (.txt 30, hidden 3) and 2 folders (@eaDir)"; "" for nothing."""
        return " and ".join(
            f"{total} {word if total > 1 else word[:-1]} ({_most(counts)})"
            for word, counts in (("files", self.files), ("folders", self.folders))
            if (total := counts.total())
        )

    def warning(self) -> str | None:
        """About pictures that are not read, if there are any."""
        count = self.pictures.total()
        if not count:
            return None
        pictures, are, them = ("pictures", "are", "them") if count > 1 else ("picture", "is", "it")
        return (
            f"{count} {pictures} {are} of a kind that is not read and {are} left out"
            f" ({_most(self.pictures)}): convert {them} to JPEG or PNG"
        )


def _most(counts: Counter[str], shown: int = 6) -> str:
    if len(counts) == 1:
        return next(iter(counts))  # the number is told before
    first = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:shown]
    others = counts.total() - sum(number for _, number in first)
    parts = [f"{name} {number}" for name, number in first]
    return ", ".join(parts + ([f"others {others}"] if others else []))


@dataclass
class Scan:
    """The pictures in a folder, as paths below it, sorted; and what else lies there.

    Attributes:
        folders: those that were looked into, as paths below it; "" for itself.
    """

    files: list[str]
    left: Left
    folders: list[str]


def is_passed_over(folder: str) -> bool:
    """Whether a folder of that name is hidden, or a system's."""
    return folder.startswith(".") or folder.lower() in _SYSTEM_FOLDERS


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one; links that lead nowhere are none."""
    try:
        return entry.is_dir()
    except OSError:  # such as a link to itself
        return False


def is_file(entry: os.DirEntry[str]) -> bool:
    """Whether it is a regular file, or a link to one."""
    try:
        return entry.is_file()
    except OSError:
        return False


def scan(folder: str, *, unread: bool = False, refused: dict[str, OSError] | None = None) -> Scan:
    """Looks for pictures at any depth. Links to folders are not followed.

    Args:
        unread: whether what only looks like a picture is among `files` too: pictures of kinds that
            are not read, pipes with a picture's ending.
        refused: folders that cannot be read are put in here; None raises.

    Raises:
        OSError: a folder cannot be read.
    """
    files: list[str] = []
    unsure: list[tuple[str, str]] = []  # path, ending
    left = Left()
    waiting, seen = [""], []
    while waiting:
        below = waiting.pop()
        seen.append(below)
        place, prefix = (f"{folder}/{below}", f"{below}/") if below else (folder, "")
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    name = entry.name
                    if entry.is_dir(follow_symlinks=False):
                        if is_passed_over(name):
                            left.folders["hidden" if name.startswith(".") else name] += 1
                        else:
                            waiting.append(prefix + name)
                        continue
                    if name.startswith("."):
                        left.files["hidden"] += 1
                        continue
                    ending = os.path.splitext(name)[1].lower()
                    if not entry.is_file(follow_symlinks=False):
                        if is_folder(entry):
                            left.folders["links"] += 1
                            continue
                        if not entry.is_symlink() and not (unread and ending in PICTURE_ENDINGS):
                            left.files["not regular files"] += 1
                            continue
                    if ending in PICTURE_ENDINGS:
                        files.append(prefix + name)
                    elif ending in _OTHER_ENDINGS:
                        left.files[ending] += 1
                    else:
                        unsure.append((prefix + name, ending))
        except OSError as error:
            if refused is None:
                raise
            refused[place] = error
    _decide(folder, unsure, files, left, unread)
    return Scan(sorted(files), left, seen)


def _decide(
    folder: str, unsure: list[tuple[str, str]], files: list[str], left: Left, unread: bool
) -> None:
    """Tells pictures from other files by their first bytes, and counts the others."""
    for (path, ending), head in zip(
        unsure, heads(os.path.join(folder, path) for path, _ in unsure), strict=True
    ):
        kind = None if head is None else kind_of(head)
        known = kind is not None or ending in UNREAD_ENDINGS
        if kind in READ or (known and unread):
            files.append(path)
            continue
        reason = ending_of(path)
        if known:
            left.pictures[reason if reason == ending else kind or reason] += 1
        elif head is None:
            reason = "cannot be read"
        elif not head:
            reason = "empty"
        left.files[reason] += 1


def ending_of(name: str) -> str:
    """A file's ending, lower case, as one counts them: "no ending" and "other endings" too."""
    ending = os.path.splitext(name)[1].lower()
    usual = 1 < len(ending) <= _LONGEST_ENDING and ending.isprintable() and " " not in ending
    return ending if usual else "no ending" if len(ending) <= 1 else "other endings"


def heads(paths: Iterable[str]) -> list[bytes | None]:
    """The first bytes of each file; None where it cannot be read."""
    paths = list(paths)
    if len(paths) < _THREADS:
        return list(map(_head, paths))
    # Threads hide the latency of network disks; whole slices, as a task costs more than a read.
    parts = [paths[i::_THREADS] for i in range(_THREADS)]
    found: list[bytes | None] = [None] * len(paths)
    with ThreadPoolExecutor(_THREADS) as pool:
        for i, part in enumerate(pool.map(lambda part: list(map(_head, part)), parts)):
            found[i::_THREADS] = part
    return found


def _head(path: str) -> bytes | None:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(file, HEAD_BYTES)
    except OSError:
        return None
    finally:
        os.close(file)
