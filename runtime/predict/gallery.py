"""Writes a page of predictions: thumbnails with bars, to sort and filter, in one HTML file."""

from __future__ import annotations

import base64
import math
from collections import Counter
from pathlib import Path
from typing import Any

from convoy.runtime.predict.outputs import (
    Labelled,
    Output,
    complete,
    open_part,
    part_of,
    shown_name,
)
from convoy.utils.files import Remote
from convoy.utils.pages.page import write_page

# A browser still scrolls through this many smoothly; about 15 MB.
PER_PAGE = 2000
BARS = 5


class Gallery(Output):
    """Writes `<name>.html`, and `<name>-2.html` and so on for every further 2,000 images.

    Args:
        path: the first page.
        count: number of images to expect.
        title: the model's description, for people.
        where: the searched place.
    """

    format = "gallery"

    def __init__(self, path: Path | Remote, count: int, title: str, where: str) -> None:
        self.path = self._first = path
        self._title, self._where, self._count = title, where, count
        self.pages = max(1, math.ceil(count / PER_PAGE))
        self._page = 0
        self._cards: list[dict[str, Any]] = []
        # Pages are written and closed one by one; this keeps other predictions away meanwhile.
        self._lock = open_part(path) if isinstance(path, Path) else None

    def _file(self, page: int) -> Path | Remote:
        """Returns the file of a page, counted from 1."""
        stem = self._first.name.removesuffix(".html")
        return self._first if page == 1 else self._first.with_name(f"{stem}-{page}.html")

    def write(self, item: Labelled) -> None:
        """Adds a card, and writes the page if it is full."""
        self._cards.append(self._card(item))
        if len(self._cards) == PER_PAGE:
            self._flush()

    def finish(self) -> None:
        """Writes the last page."""
        if self._cards:
            self._flush()

    def publish(self) -> None:
        """Gives the pages their names, and removes further pages of an earlier, longer run."""
        for page in range(1, self._page + 1):
            complete(self._file(page))
        number = self.pages + 1
        while (stale := self._file(number)).exists():
            stale.unlink()
            number += 1

    def release(self) -> None:
        """Lets another prediction write these pages."""
        if self._lock:
            self._lock.close()

    def _card(self, item: Labelled) -> dict[str, Any]:
        first = item.predictions[0] if item.predictions else None
        group = f"({item.trouble})" if item.error else first.name if first else "(unsure)"
        image = base64.b64encode(item.thumbnail).decode() if item.thumbnail else None
        return {
            "name": shown_name(item.path, self._where),
            "group": group,
            "confidence": first.probability if first else 0.0,
            "bars": item.predictions[:BARS],
            "error": item.error,
            "image": image,
        }

    def _flush(self) -> None:
        self._page += 1
        groups = Counter(card["group"] for card in self._cards)
        before = (self._page - 1) * PER_PAGE
        write_page(
            part_of(self._file(self._page)),
            "gallery.html.j2",
            cards=self._cards,
            groups=sorted(groups.items()),
            title=self._title,
            where=self._where,
            page=self._page,
            first=before + 1,
            last=before + len(self._cards),
            count=self._count,
            links=[self._file(page).name for page in range(1, self.pages + 1)],
        )
        self._cards = []
