"""Draws docs/images/architecture.svg: folders and rooms as boxes, imports as arrows that run down.

    python scripts/architecture.py

The graph is read from the code by Grimp, which import-linter brings; nothing is imported. An arrow
stands for imports between two rooms. Those that follow from other arrows are left out, as are all
to the folders below, which every room may import.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from html import escape
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "images" / "architecture.svg"
FOLDERS = {
    "runtime": "what each mode does",
    "model": "Keras models and weights",
    "dataloader": "from files to batches",
    "utils": "tools that import none of the above",
}
WIDTH, MARGIN, GAP = 1120, 20, 14
WIDEST = 130  # gap between two boxes in a row
BOX, ROW, HEAD = 28, 54, 34  # height of a box, of a row with the arrows below it, of a title
COLOURS = {"runtime": "#3b6ea5", "model": "#8a5a9e", "dataloader": "#3d8361", "utils": "#7a6a4f"}
STYLE = """<style>
text { font: 13px sans-serif; fill: #1c1e21 } .title { font-weight: bold; font-size: 15px }
.said { fill: #5f6670 } .frame { fill: #f6f7f9; stroke: #c8ccd2 } .box { fill: #fff }
.arrow { fill: none; stroke: #8b929c } .head { fill: #8b929c }
@media (prefers-color-scheme: dark) {
text { fill: #e8eaed } .said { fill: #a5acb6 } .frame { fill: #202327; stroke: #474d55 }
.box { fill: #2c3036 } }
</style>"""


def graph() -> grimp.ImportGraph:
    """Reads the imports between all modules from a copy with a wheel's layout."""
    sys.path.insert(0, str(ROOT / "scripts"))
    from docs_hook import copy_package  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory() as place:
        copy_package(Path(place, "convoy"))
        sys.path.insert(0, place)
        sys.modules.pop("convoy", None)
        return grimp.build_graph("convoy", cache_dir=None)


def arrows(found: grimp.ImportGraph, folder: str) -> dict[str, set[str]]:
    """Maps each room to the rooms of the same folder that it imports; a file counts as a room."""
    parent = f"convoy.{folder}"
    rooms = {name.rpartition(".")[2] for name in found.find_children(parent)}
    imports: dict[str, set[str]] = {room: set() for room in rooms}
    for module in found.find_descendants(parent):
        for other in found.find_modules_directly_imported_by(module):
            if other.startswith(f"{parent}."):
                here, there = (name.split(".")[2] for name in (module, other))
                if here != there:
                    imports[here].add(there)
    return imports


def depth(room: str, imports: dict[str, set[str]]) -> int:
    """Returns the length of the longest chain of arrows below a room."""
    return max((1 + depth(other, imports) for other in imports[room]), default=0)


def needed(imports: dict[str, set[str]]) -> Iterable[tuple[str, str]]:
    """Yields the arrows that do not follow from others."""

    def below(room: str) -> set[str]:
        return set().union(*({other} | below(other) for other in imports[room]), set())

    for room, others in imports.items():
        for other in others:
            if not any(other in below(third) for third in others - {other}):
                yield room, other


def rows(imports: dict[str, set[str]]) -> list[list[str]]:
    """Returns the rooms by depth, the deepest chains first, and rooms that import none last."""
    order: dict[int, list[str]] = {}
    for room in sorted(imports):
        order.setdefault(depth(room, imports), []).append(room)
    return [order[level] for level in sorted(order, reverse=True)]


def panel(folder: str, imports: dict[str, set[str]], x: int, y: int, width: int) -> tuple[str, int]:
    """Returns a folder's frame with its rooms as SVG, and the frame's height."""
    places: dict[str, tuple[int, int, int]] = {}
    body, top = [], y + HEAD + 6
    for row in rows(imports):
        lines: list[tuple[list[tuple[str, int]], int]] = []
        line: list[tuple[str, int]] = []
        used = 0
        for room in row:
            wide = 16 + round(7.4 * len(room))
            if line and used + wide > width - 2 * GAP:
                lines.append((line, used))
                line, used = [], 0
            line.append((room, wide))
            used += wide + GAP
        lines.append((line, used))
        for line, used in lines:
            apart = min(WIDEST, (width - used + GAP * len(line)) // (len(line) + 1))
            left = x + (width - used + GAP * len(line) - apart * (len(line) - 1)) // 2
            for room, wide in line:
                places[room] = (left, top, wide)
                left += wide + apart
            top += BOX + 8
        top += ROW - BOX - 8
    height = top - y - (ROW - BOX) + 10
    title = (
        f'<rect class="frame" x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>'
        f'<text class="title" x="{x + GAP}" y="{y + 22}" style="fill:{COLOURS[folder]}">{folder}/'
        f'</text><text class="said" x="{x + GAP + 14 + 9 * len(folder)}" y="{y + 22}">'
        f"{escape(FOLDERS[folder])}</text>"
    )
    for room, other in sorted(needed(imports)):
        (x1, y1, w1), (x2, y2, w2) = places[room], places[other]
        begin, end = (x1 + w1 // 2, y1 + BOX), (x2 + w2 // 2, y2 - 5)
        middle = (begin[1] + end[1]) // 2
        body.append(
            f'<path class="arrow" marker-end="url(#head)" d="M{begin[0]},{begin[1]} '
            f'C{begin[0]},{middle} {end[0]},{middle} {end[0]},{end[1]}"/>'
        )
    for room, (left, over, wide) in places.items():
        body.append(
            f'<rect class="box" x="{left}" y="{over}" width="{wide}" height="{BOX}" rx="5" '
            f'stroke="{COLOURS[folder]}"/><text x="{left + wide // 2}" y="{over + 18}" '
            f'text-anchor="middle">{room}</text>'
        )
    return "\n".join([title, *body]), height


def draw() -> str:
    """Returns the picture: runtime above, model and dataloader side by side, utils below."""
    found = graph()
    inner, half = WIDTH - 2 * MARGIN, (WIDTH - 3 * MARGIN) // 2
    parts, y = [], MARGIN
    of = {folder: arrows(found, folder) for folder in FOLDERS}
    text, high = panel("runtime", of["runtime"], MARGIN, y, inner)
    parts.append(text)
    between = y + high
    y = between + 40
    text, left = panel("model", of["model"], MARGIN, y, half)
    parts.append(text)
    text, right = panel("dataloader", of["dataloader"], 2 * MARGIN + half, y, half)
    parts.append(text)
    lower = y + max(left, right) + 40
    text, high = panel("utils", of["utils"], MARGIN, lower, inner)
    parts.append(text)
    for x, height in ((MARGIN + half // 2, left), (2 * MARGIN + half + half // 2, right)):
        for begin, end in ((between, y - 6), (y + height, lower - 6)):
            parts.append(
                f'<path class="arrow" stroke-width="2.5" marker-end="url(#head)" '
                f'd="M{x},{begin} L{x},{end}"/>'
            )
    total = lower + high + MARGIN
    head = (
        '<defs><marker id="head" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" '
        'markerHeight="7" markerUnits="userSpaceOnUse" orient="auto"><path class="head" '
        'd="M0,0 L8,4 L0,8 z"/></marker></defs>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}" '
        f'width="{WIDTH}" height="{total}">\n{STYLE}\n{head}\n' + "\n".join(parts) + "\n</svg>\n"
    )


if __name__ == "__main__":
    TARGET.write_text(draw())
    print(f"wrote {TARGET.relative_to(ROOT)}")
