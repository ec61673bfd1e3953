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
        contents = []
        for i in indices:
            try:
                with open(self.files[int(i)], "rb") as file:
                    contents.append(file.read())
            except OSError as error:
                raise unreadable(error) from error
        return contents

    def locate(self, i: int) -> tuple[str, int | None]:
        return self.files[i], None

    def span(self, i: int) -> tuple[str, int, int | None]:
        return self.files[i], 0, None

    def find(self, file: str, offset: int | None) -> int | None:
        return self._numbers.get(os.path.join(self.root, file)) if offset is None else None

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.files)}

    def list_digest(self) -> str:
        names = "\0".join(os.path.relpath(file, self.root) for file in self.files)
        return hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()

    def parse(self, raw: bytes, label: int) -> tuple[bytes, int]:
        return raw, int(label)
