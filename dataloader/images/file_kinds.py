"""Tells the kind of a file by its ending or, if that says nothing, by its first bytes.

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
"""The kinds that we decode, in training, evaluation and predict alike."""

# Endings that browsers and cameras use; .mpo and .jps hold several JPEGs; we read the first.
PICTURE_ENDINGS = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp", ".mpo"),
        *(".jps", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff", ".avif"),
    }
)
# Pictures of kinds that we do not read (unless their first bytes show another kind).
UNREAD_ENDINGS = frozenset(
    {
        *(".heic", ".heif", ".jxl", ".jp2", ".j2k", ".jpx", ".jpf", ".psd", ".svg", ".ico"),
        *(".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".exr", ".hdr", ".dng", ".cr2", ".cr3"),
        *(".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".raw", ".xcf", ".eps"),
        *(".dcm", ".icns", ".qoi"),
    }
)
# Skip reading their first bytes: there may be a million of them beside a million images.
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
# Folders of operating systems and network disks, in lower case: bins, snapshots, and image copies.
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
    """Returns a picture's kind from its first bytes (32 are enough); None for other files."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    # A text may begin with "BM", so check the length of the second header, too.
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
    """Counts the files and folders that a scan left out, by ending or reason.

    Attributes:
        files: ending (".txt") or reason ("hidden") -> number.
        folders: name or reason -> number; their contents are not counted.
        pictures: the part of `files` that are pictures of unsupported kinds.
    """

    files: Counter[str] = field(default_factory=Counter)
    folders: Counter[str] = field(default_factory=Counter)
    pictures: Counter[str] = field(default_factory=Counter)

    def add(self, other: Left) -> None:
        """Adds the other's counts."""
        self.files += other.files
        self.folders += other.folders
        self.pictures += other.pictures

    def text(self) -> str:
        """Returns text such as "33 files (.txt 30, hidden 3) and 2 folders (@eaDir)", or ""."""
        return " and ".join(
            f"{total} {word if total > 1 else word[:-1]} ({_most(counts)})"
            for word, counts in (("files", self.files), ("folders", self.folders))
            if (total := counts.total())
        )

    def warning(self) -> str | None:
        """Returns a warning about pictures of unsupported kinds, or None."""
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
        return next(iter(counts))  # the number is shown before
    first = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:shown]
    others = counts.total() - sum(number for _, number in first)
    parts = [f"{name} {number}" for name, number in first]
    return ", ".join(parts + ([f"others {others}"] if others else []))


@dataclass
class Scan:
    """The pictures in a folder, as sorted relative paths, and a count of everything else.

    Attributes:
        folders: the folders searched, as paths below it; "" for itself.
    """

    files: list[str]
    left: Left
    folders: list[str]


def is_passed_over(folder: str) -> bool:
    """Returns whether a folder of that name is hidden, or belongs to a system."""
    return folder.startswith(".") or folder.lower() in _SYSTEM_FOLDERS


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Returns whether it is a folder or a link to one; a broken link is not."""
    try:
        return entry.is_dir()
    except OSError:  # for example a link to itself
        return False


def is_file(entry: os.DirEntry[str]) -> bool:
    """Returns whether it is a regular file or a link to one."""
    try:
        return entry.is_file()
    except OSError:
        return False


def scan(folder: str, *, unread: bool = False, refused: dict[str, OSError] | None = None) -> Scan:
    """Finds pictures at any depth. Does not follow links to folders.

    Args:
        folder: where to look.
        unread: put into `files` also what only looks like a picture: pictures of unsupported kinds,
            pipes with a picture's ending.
        refused: collects folders that cannot be read; None raises instead.

    Raises:
        OSError: a folder cannot be read.
    """
    found = _Found(unread)
    seen = []
    while found.waiting:
        below = found.waiting.pop()
        seen.append(below)
        place, prefix = (f"{folder}/{below}", f"{below}/") if below else (folder, "")
        try:
            with os.scandir(place) as entries:
                found.sort_in(entries, prefix)
        except OSError as error:
            if refused is None:
                raise
            refused[place] = error
    found.decide(folder)
    return Scan(sorted(found.files), found.left, seen)


@dataclass
class _Found:
    """What a scan has found so far.

    Attributes:
        unread: as in `scan`.
        files: pictures.
        unsure: path and ending of files whose first bytes must decide.
        left: the other files.
        waiting: folders to search.
    """

    unread: bool
    files: list[str] = field(default_factory=list)
    unsure: list[tuple[str, str]] = field(default_factory=list)
    left: Left = field(default_factory=Left)
    waiting: list[str] = field(default_factory=lambda: [""])

    def sort_in(self, entries: Iterable[os.DirEntry[str]], prefix: str) -> None:
        """Adds the entries of a folder; `prefix` makes their names paths."""
        left = self.left
        for entry in entries:
            name = entry.name
            if entry.is_dir(follow_symlinks=False):
                if is_passed_over(name):
                    left.folders["hidden" if name.startswith(".") else name] += 1
                else:
                    self.waiting.append(prefix + name)
                continue
            if name.startswith("."):
                left.files["hidden"] += 1
                continue
            ending = os.path.splitext(name)[1].lower()
            if not entry.is_file(follow_symlinks=False):
                if is_folder(entry):
                    left.folders["links"] += 1
                    continue
                if not entry.is_symlink() and not (self.unread and ending in PICTURE_ENDINGS):
                    left.files["not regular files"] += 1
                    continue
            if ending in PICTURE_ENDINGS:
                self.files.append(prefix + name)
            elif ending in _OTHER_ENDINGS:
                left.files[ending] += 1
            else:
                self.unsure.append((prefix + name, ending))

    def decide(self, folder: str) -> None:
        """Separates pictures from other files by their first bytes, and counts the others."""
        firsts = heads(os.path.join(folder, path) for path, _ in self.unsure)
        for (path, ending), head in zip(self.unsure, firsts, strict=True):
            kind = None if head is None else kind_of(head)
            known = kind is not None or ending in UNREAD_ENDINGS
            if kind in READ or (known and self.unread):
                self.files.append(path)
                continue
            reason = ending_of(path)
            if known:
                self.left.pictures[reason if reason == ending else kind or reason] += 1
            elif head is None:
                reason = "cannot be read"
            elif not head:
                reason = "empty"
            self.left.files[reason] += 1


def ending_of(name: str) -> str:
    """Returns a file's ending in lower case, for counting; also "no ending" and "other endings"."""
    ending = os.path.splitext(name)[1].lower()
    usual = 1 < len(ending) <= _LONGEST_ENDING and ending.isprintable() and " " not in ending
    return ending if usual else "no ending" if len(ending) <= 1 else "other endings"


def heads(paths: Iterable[str]) -> list[bytes | None]:
    """Returns the first bytes of each file; None if it cannot be read."""
    paths = list(paths)
    if len(paths) < _THREADS:
        return list(map(_head, paths))
    # Threads hide the latency of network disks; give each a whole slice, as a task costs more than
    # a read.
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
