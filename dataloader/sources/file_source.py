"""Base of sources whose examples are single image files."""

from __future__ import annotations

import hashlib
import os
from functools import cached_property

import numpy as np

from convoy.dataloader.errors import unreadable
from convoy.dataloader.sources.source import Source


class FileSource(Source):
    """A source with one file per example.

    Attributes:
        files: the paths by example number.
    """

    files: list[str]

    def read(self, indices: np.ndarray) -> list[bytes]:
        """Returns the content of these files."""
        contents = []
        for i in indices:
            try:
                with open(self.files[int(i)], "rb") as file:
                    contents.append(file.read())
            except OSError as error:
                raise unreadable(error) from error
        return contents

    def locate(self, i: int) -> tuple[str, int | None]:
        """Returns the file, without an offset."""
        return self.files[i], None

    def span(self, i: int) -> tuple[str, int, int | None]:
        """Returns the whole file."""
        return self.files[i], 0, None

    def find(self, file: str, offset: int | None) -> int | None:
        """Returns the number of a file below the root; None if it is not in the list."""
        return self._numbers.get(os.path.join(self.root, file)) if offset is None else None

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.files)}

    def list_digest(self) -> str:
        """Returns a hash of the files' paths below the root, in order."""
        names = "\0".join(os.path.relpath(file, self.root) for file in self.files)
        return hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()

    def parse(self, raw: bytes, label: int) -> tuple[bytes, int]:
        """Returns the file's bytes, which are the image, and the label of its folder."""
        return raw, int(label)
