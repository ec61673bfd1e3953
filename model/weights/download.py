"""Downloads the weights that keras.applications publishes.

Keras publishes no SHA-256 of its files, only MD5s, with which it checks its own downloads; so do
we. MD5 detects damaged or cut downloads; https protects against replaced files.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from convoy.utils.errors import UserError

_V1 = "https://storage.googleapis.com/keras-applications"
_V2 = "https://storage.googleapis.com/tensorflow/keras-applications/efficientnet_v2"
# `WEIGHTS_HASHES` of keras.applications.efficientnet and .efficientnet_v2, with classifier.
_MD5 = {
    "efficientnet-b0": "902e53a9f72be733fc0bcb005b3ebbac",
    "efficientnet-b1": "1d254153d4ab51201f1646940f018540",
    "efficientnet-b2": "b15cce36ff4dcbd00b6dd88e7857a6ad",
    "efficientnet-b3": "ffd1fdc53d0ce67064dc6a9c7960ede0",
    "efficientnet-b4": "18c95ad55216b8f92d7e70b3a046e2fc",
    "efficientnet-b5": "ace28f2a6363774853a83a0b21b9421a",
    "efficientnet-b6": "165f6e37dce68623721b423839de8be5",
    "efficientnet-b7": "8c03f828fec3ef71311cd463b6759d99",
    "efficientnetv2-b0": "21ecbf6da12460d5c40bb2f29ceb2188",
    "efficientnetv2-b1": "069f0534ff22adf035c89e2d9547a9dc",
    "efficientnetv2-b2": "424e49f28180edbde1e94797771950a7",
    "efficientnetv2-b3": "1f1fc43bd98a6e4fd8fdfd551e02c7a0",
    "efficientnetv2-s": "e1d88a8495beba45748fedd0cecbe016",
    "efficientnetv2-m": "a3bf6aa3276309f4fc6a34aa114c95cd",
    "efficientnetv2-l": "27e6d408b53c7ebc868fefa357689935",
}
TIMEOUT = 20.0
"""Seconds without data after which a connection is given up."""
TRIES = 3
_BLOCK = 1 << 20


class DownloadError(UserError, OSError):
    """A file could not be fetched, or is not the published one. The text says why."""


class _Cut(Exception):
    """The connection ended before the file did."""


@dataclass(frozen=True)
class Published:
    """A published file: its address, name and MD5."""

    url: str
    md5: str

    @property
    def name(self) -> str:
        """The file's name, the last part of its URL."""
        return self.url.rsplit("/", 1)[1]


def published(arch: str) -> Published | None:
    """Returns Keras' file for an architecture, or None."""
    if arch not in _MD5:
        return None
    if arch.startswith("efficientnetv2"):
        return Published(f"{_V2}/{arch}.h5", _MD5[arch])
    return Published(f"{_V1}/{arch.replace('-', '')}.h5", _MD5[arch])


def download(
    file: Published, folder: Path, say: Callable[[str], None], timeout: float = TIMEOUT
) -> Path:
    """Fetches a file into a folder, where it has its name once it is complete and checked.

    Partial data are kept in `NAME.part`; an interrupted download continues there, in this call or
    in a later one. If several processes call this, one downloads and the others wait.

    Args:
        file: what to fetch.
        folder: made if it does not exist.
        say: prints a line.
        timeout: seconds without data after which an attempt ends.

    Raises:
        DownloadError: there is no connection, it was interrupted too often, or the file is a
            different one.
    """
    target = folder / file.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{file.name}.part").open("ab+") as part:
            fcntl.flock(part, fcntl.LOCK_EX)
            if not (target.exists() and _md5(target) == file.md5):
                say(f"downloading {file.url}")
                _fill(part, file, timeout)
                os.replace(part.name, target)
            elif os.path.exists(part.name):
                os.unlink(part.name)  # was created just now, only as a lock
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(f"cannot write {target}: {error.strerror or error}") from error
    return target


def _fill(part: BinaryIO, file: Published, timeout: float) -> None:
    reason = ""
    for _ in range(TRIES):
        try:
            _append(part, file.url, timeout)
            break
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and part.tell():
                reason = "the server has no bytes after the part downloaded so far"
                if _md5(Path(part.name)) == file.md5:
                    break  # it was already complete
                part.truncate(0)
                continue
            os.unlink(part.name) if not part.tell() else None
            raise DownloadError(f"{file.url}: {error.code} {error.reason}") from error
        except (_Cut, http.client.HTTPException, OSError) as error:
            # A URLError wraps the cause; a timeout while reading is not wrapped.
            reason = str(getattr(error, "reason", "") or error) or type(error).__name__
    else:
        size = part.seek(0, os.SEEK_END)
        if not size:
            os.unlink(part.name)
        kept = (
            f"; {size >> 10} kB are kept, and the next attempt continues from there" if size else ""
        )
        raise DownloadError(f"{file.url}: {reason}{kept}")
    part.flush()
    os.fsync(part.fileno())
    if _md5(Path(part.name)) != file.md5:
        os.unlink(part.name)
        raise DownloadError(f"{file.url} is not the published file: its MD5 sum differs")


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _append(part: BinaryIO, url: str, timeout: float) -> None:
    """Fetches the bytes that follow those already there."""
    start = part.seek(0, os.SEEK_END)
    headers = {"Range": f"bytes={start}-"} if start else {}
    with urllib.request.urlopen(
        urllib.request.Request(url, headers=headers), timeout=timeout
    ) as answer:
        if start and answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            part.truncate(0)  # the server sends the whole file again
        left = answer.headers.get("Content-Length")
        received = 0
        while block := answer.read(_BLOCK):
            part.write(block)
            received += len(block)
    if left is not None and received < int(left):
        raise _Cut(f"the connection was cut after {(start + received) >> 10} kB")
