"""Handles local paths and object stores alike.

`path_of("runs/b0")` is a `pathlib.Path`; `path_of("gs://bucket/runs/b0")` is a `Remote`, which has
the `Path` methods that a run's folder needs. TensorFlow is imported for the first use of a
`Remote`, and never for a local path. TensorFlow decides which URLs work: gs:// and ram:// are built
in, s3:// and others come with tensorflow-io.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from functools import total_ordering
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_URL = re.compile(r"[a-zA-Z][\w+.-]*://")
# An object store uploads the whole file again at each flush.
_FLUSH_SECONDS = 30.0


def is_url(path: str | os.PathLike[str] | Remote) -> bool:
    """Returns whether a path is for TensorFlow's file systems, and not local."""
    return isinstance(path, Remote) or bool(_URL.match(str(path)))


def path_of(path: str | os.PathLike[str] | Remote) -> Path | Remote:
    """Returns a `Remote` for a URL, otherwise a `Path`."""
    if isinstance(path, Remote):
        return path
    return Remote(str(path)) if is_url(path) else Path(path)


def in_folder(place: str, name: str) -> Path | Remote:
    """Returns the place, or the file `name` in it if it is a folder, or written as one (`new/`)."""
    path = path_of(place)
    return path / name if place.endswith("/") or path.is_dir() else path


def save_tensors(arrays: Mapping[str, np.ndarray], file: Path, metadata: dict[str, str]) -> None:
    """Writes a .safetensors file that others may read as they may any new file of this process.

    safetensors 0.8.0 lets nobody but the owner read what it writes (mode 600, whatever the umask).

    Raises:
        OSError, SafetensorError: it cannot be written.
    """
    from safetensors.numpy import save_file

    is_new = not file.exists()
    file.touch()
    mode = stat.S_IMODE(file.stat().st_mode)
    try:
        save_file(dict(arrays), file, metadata=metadata)
    except BaseException:
        if is_new:
            file.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # some file systems have no modes
        file.chmod(mode)


@total_ordering
class Remote:
    """A URL with the needed methods of `pathlib.Path`, which raise the same errors.

    Object stores have no real folders: `mkdir` may do nothing, and an empty folder may not exist.
    """

    def __init__(self, url: str) -> None:
        scheme, rest = url.split("://", 1)
        self._url = f"{scheme}://{rest.rstrip('/')}"

    def __str__(self) -> str:
        return self._url

    __repr__ = __str__

    def __truediv__(self, name: str) -> Remote:
        return Remote(f"{self._url}/{name}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and str(self) == str(other)

    def __lt__(self, other: Remote) -> bool:
        return str(self) < str(other)

    def __hash__(self) -> int:
        return hash(self._url)

    @property
    def name(self) -> str:
        """Returns the part after the last slash."""
        return self._url.rsplit("/", 1)[1]

    @property
    def parent(self) -> Remote:
        """Returns the folder of this path."""
        return Remote(self._url.rsplit("/", 1)[0])

    def with_name(self, name: str) -> Remote:
        """Returns another file in the same folder."""
        return self.parent / name

    def exists(self) -> bool:
        """Returns whether the file or folder exists."""
        return self._ask(lambda gfile: gfile.exists(self._url))

    def is_dir(self) -> bool:
        """Returns whether this is a folder."""
        return self._ask(lambda gfile: gfile.isdir(self._url))

    def size(self) -> int:
        """Returns the file's size in bytes."""
        return int(self._ask(lambda gfile: gfile.stat(self._url).length))

    def stamp(self) -> tuple[int, ...]:
        """See `stamp_of`."""
        found = self._ask(lambda gfile: gfile.stat(self._url))
        return (int(found.mtime_nsec), int(found.length)) if found.mtime_nsec else ()

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Makes this folder and those above it; an existing folder is not an error."""
        self._ask(lambda gfile: gfile.makedirs(self._url))

    def iterdir(self) -> Iterator[Remote]:
        """Yields the contents of the folder."""
        names = self._ask(lambda gfile: gfile.listdir(self._url))
        yield from (self / name.rstrip("/") for name in names)

    def glob(self, pattern: str) -> Iterator[Remote]:
        """Yields the folder's contents that match a pattern; nothing if there is no folder."""
        with suppress(FileNotFoundError):
            yield from (path for path in self.iterdir() if fnmatch(path.name, pattern))

    def unlink(self, missing_ok: bool = False) -> None:
        """Removes the file."""
        try:
            self._ask(lambda gfile: gfile.remove(self._url))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def open(self, mode: str = "r", **text: Any) -> IO[Any]:
        """Opens a Python file.

        Args:
            mode: as for the built-in `open`.
            **text: arguments of `io.TextIOWrapper`, such as the encoding.
        """
        if "w" in mode and self._url.startswith("ram:"):
            self.unlink(missing_ok=True)  # TensorFlow's RAM file system would append
        raw = _Raw(self, mode.replace("b", "").replace("t", ""))
        stream = io.BufferedReader(raw) if raw.readable() else _Writer(raw)
        return stream if "b" in mode else io.TextIOWrapper(stream, **{"encoding": "utf-8"} | text)

    def read_bytes(self) -> bytes:
        """Reads the whole file."""
        with self.open("rb") as stream:
            return stream.read()

    def write_bytes(self, content: bytes) -> None:
        """Replaces the file's contents."""
        with self.open("wb") as stream:
            stream.write(content)

    def read_text(self, encoding: str = "utf-8") -> str:
        """Reads the whole file as text."""
        return self.read_bytes().decode(encoding)

    def write_text(self, content: str, encoding: str = "utf-8") -> None:
        """Replaces the file's contents by text."""
        self.write_bytes(content.encode(encoding))

    def _ask(self, action: Callable[[Any], Any]) -> Any:
        with _os_errors(self._url):
            return action(_gfile())


class _Writer(io.BufferedWriter):
    """Passes `flush` on; Python's own class does not."""

    def flush(self) -> None:
        super().flush()
        self.raw.flush()


class _Raw(io.RawIOBase):
    """Wraps a GFile as Python's unbuffered file."""

    def __init__(self, path: Remote, mode: str) -> None:
        self._mode, self._url = mode, str(path)
        self._flushed = time.monotonic()
        with _os_errors(self._url):
            self._file = _gfile().GFile(self._url, mode + "b")
            # GFile opens late; report a missing file or folder here.
            self._file.size() if mode == "r" else self._file.write(b"")

    def readable(self) -> bool:
        return self._mode == "r"

    def writable(self) -> bool:
        return self._mode != "r"

    def readinto(self, buffer: Any) -> int:
        with _os_errors(self._url):
            chunk = self._file.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def write(self, content: Any) -> int:
        with _os_errors(self._url):
            self._file.write(bytes(content))
        return len(content)

    def flush(self) -> None:
        if self.closed or self.readable() or time.monotonic() - self._flushed < _FLUSH_SECONDS:
            return
        self._flushed = time.monotonic()
        # A brief network failure must not end a run over its log; `close` does raise.
        with suppress(OSError), _os_errors(self._url):
            self._file.flush()

    def close(self) -> None:
        if self.closed:
            return
        try:
            with _os_errors(self._url):
                self._file.close()
        finally:
            super().close()


def _gfile() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    return tf.io.gfile


@contextmanager
def _os_errors(url: str) -> Iterator[None]:
    """Converts TensorFlow's errors to Python's, so that callers need to know only one kind."""
    from tensorflow.errors import NotFoundError, OpError, UnimplementedError

    try:
        yield
    except NotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "no such file", url) from error
    except UnimplementedError as error:
        scheme = url.split(":", 1)[0]
        text = f"TensorFlow has no file system for {scheme}:// here (s3:// needs tensorflow-io)"
        raise OSError(errno.ENOSYS, text, url) from error
    except OpError as error:
        raise OSError(errno.EIO, error.message, url) from error


def files_in(folder: Path | Remote) -> list[Path | Remote]:
    """Returns the files and folders in a folder, sorted by name."""
    return sorted(folder.iterdir(), key=lambda file: file.name)


def size_of(path: Path | Remote) -> int:
    """Returns a file's size in bytes."""
    return path.size() if isinstance(path, Remote) else path.stat().st_size


def stamp_of(path: Path | Remote) -> tuple[int, ...]:
    """Returns values that change when a file does; empty if the file system reports no time.

    They are the time of its last change (nanoseconds since 1970), its size and its inode.
    """
    if isinstance(path, Remote):
        return path.stamp()
    found = path.stat()
    # Include ctime, which nobody can set: a copy with the old time is a different file.
    return max(found.st_mtime_ns, found.st_ctime_ns), found.st_size, found.st_ino


def truncate(path: Path | Remote, size: int) -> None:
    """Truncates a file to `size` bytes."""
    if isinstance(path, Remote):
        path.write_bytes(path.read_bytes()[:size])
    else:
        os.truncate(path, size)


def sync(path: Path | Remote) -> None:
    """Waits until a file or folder is on the disk. In an object store, closing a file suffices."""
    if isinstance(path, Remote):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def naming(path: str | os.PathLike[str] | Remote | None) -> Iterator[None]:
    """Adds a file's name to an error of writing it, which for a full disk has none."""
    try:
        yield
    except OSError as error:
        if path is not None and error.filename is None:
            error.filename = str(path)
        raise


def write_atomically(path: Path | Remote, text: str) -> None:
    """Replaces a small file so that readers see the old text or the new text, never a part.

    Object stores cannot rename, but show an object only when it is complete.
    """
    if isinstance(path, Remote):
        path.write_text(text)
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        sync(aside)
        os.replace(aside, path)
    except OSError as error:  # the user knows nothing of the file aside
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        aside.unlink(missing_ok=True)


def try_lock(descriptor: int, path: Path) -> bool | None:
    """Takes the lock (flock) of an open file, which its end or its process's end releases.

    Returns:
        True if this process has it, False if another has, None if the file system has no locks.

    Raises:
        FileNotFoundError: the path does not name this file any more; open it again.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    with suppress(OSError):
        if os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return True
    raise FileNotFoundError(path)


def remove_tree(path: Path | Remote) -> None:
    """Removes a folder and its contents as far as possible; never raises."""
    if isinstance(path, Path):
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError), _os_errors(str(path)):
        _gfile().rmtree(str(path))
