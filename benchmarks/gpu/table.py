"""Formats the results as Markdown tables. Does not import TensorFlow."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.gpu.cards import mfu, peak
from benchmarks.gpu.cells import CONVOY, DOCUMENTS, HOST, Cell
from benchmarks.harness.row import Entry
from benchmarks.harness.table import spread
from convoy.model.arithmetic import macs
from convoy.model.catalog import get_arch

NOT_YET = "not yet measured"
NOTHING = "Nothing has been measured yet.\n"
PRECISIONS = {"float16": "AMP, float16", "bfloat16": "bfloat16", "float32": "float32 (TF32)"}
TRAINING = (
    *("model", "precision", "batch", "what trains", "images/s", "Convoy ÷ it", "MFU, %"),
    *("memory, GiB", "document, A100, images/s"),
)
INPUT = (
    *("model", "AutoAugment", "batch", "images/s, fed", "fed ÷ at rest", "wait, ms a step"),
    *("memory, GiB", "document, A100, images/s"),
)


def markdown(results: dict[str, Any], cells: Sequence[Cell]) -> str:
    """Returns both tables, and below them the versions and the missing contenders with reasons.

    Args:
        results: `Run.results`; {} before the first run.
    """
    training: list[list[str]] = []
    feeding: list[list[str]] = []
    waiting: list[str] = []
    for cell in sorted(cells, key=_place):
        lines, line_of = (feeding, _feeding) if cell.is_input else (training, _training)
        for entry in cell.entries:
            known = found(results, cell, entry.label)
            if known is None:
                waiting.append(f"{cell.name}, {entry.label}")
            else:
                lines.append(line_of(results, cell, entry, known))
    parts = [_about(results), _table(TRAINING, training), _table(INPUT, feeding)]
    if not (training or feeding):
        parts.append(NOTHING.strip())
    notes = [*_facts(results), *_notes(results)]
    if waiting and results:
        notes.append(f"{NOT_YET}: {'; '.join(waiting)}")
    parts.append("\n".join(f"- {line}" for line in notes))
    return "\n\n".join(filter(None, parts)) + "\n"


def _place(cell: Cell) -> tuple[str, int]:
    """Returns a sort key: model, then precision."""
    return cell.arch, list(PRECISIONS).index(cell.dtype)


def found(results: dict[str, Any], cell: Cell, label: str) -> dict[str, Any] | None:
    """Returns a contender's measurements, or None if it has none."""
    known = results.get("cells", {}).get(cell.name, {}).get("found", {}).get(label)
    return known if known and known["turns"].get("speed") else None


def _training(
    results: dict[str, Any], cell: Cell, entry: Entry, known: dict[str, Any]
) -> list[str]:
    document = DOCUMENTS.get((cell.arch, cell.dtype)) if entry.label == CONVOY else None
    shown = f"{document:,}" if document else ""
    head = [cell.arch, PRECISIONS[cell.dtype]]
    speeds = [speed / entry.work for speed in known["turns"]["speed"]]
    work = macs(get_arch(cell.arch), cell.size) * entry.work
    at_most = peak(results["card"]["name"], cell.dtype)
    share = mfu(statistics.median(speeds), work, at_most)
    ratio = None if entry.label == CONVOY else _lead(results, cell, known)
    return [
        *(*head, f"{known['batch']:,}", entry.label, spread(speeds)),
        "" if ratio is None else f"{ratio:.2f}",
        "" if share is None else f"{100 * share:.1f}",
        *(_memory(known), shown),
    ]


def _lead(results: dict[str, Any], cell: Cell, known: dict[str, Any]) -> float | None:
    """Returns Convoy's work per second in this precision over that of a contender, or None.

    Convoy is in the same cell, or in the cell of the same name without "-peers".
    """
    for name in (cell.name, cell.name.removesuffix("-peers")):
        ours = results["cells"].get(name, {}).get("found", {}).get(CONVOY)
        if ours and ours["turns"].get("speed"):
            both = (statistics.median(one["turns"]["speed"]) for one in (ours, known))
            return next(both) / next(both)
    return None


def _feeding(results: dict[str, Any], cell: Cell, entry: Entry, known: dict[str, Any]) -> list[str]:
    document = DOCUMENTS[cell.arch, cell.dtype] if entry.label == HOST else None
    shown = f"{document:,}" if document else ""
    # Both are compared with the step without augmentation, which the host's row has measured.
    host = found(results, cell, HOST) or known
    rest = statistics.median(host["turns"]["resident"])
    share = [speed / rest for speed in known["turns"]["speed"]]
    return [
        *(cell.arch, entry.label, f"{known['batch']:,}", spread(known["turns"]["speed"])),
        *(spread(share), spread(known["turns"]["wait_ms"]), _memory(known), shown),
    ]


def _memory(known: dict[str, Any]) -> str:
    turns = known["turns"]
    mib = (
        turns["device_mib"] if "device_mib" in turns else turns["peak_mib"]
    )  # the process's memory, without a GPU
    return f"{max(mib) / 1024:.1f}"


def _about(results: dict[str, Any]) -> str:
    if not results:
        return ""
    card, machine = results["card"], results["machine"]
    small = " **Tiny sizes: a trial, not a measurement.**" if results["tiny"] else ""
    return (
        f"{card['name']}, {card['memory_mib'] / 1024:.0f} GiB, driver {card['driver']};"
        f" {machine['cpu']}, {machine['cores']} cores; {results['date']}, commit"
        f" {results['commit']}.{small}"
    )


def _facts(results: dict[str, Any]) -> Iterator[str]:
    """Yields the versions of each contender once."""
    seen = set()
    for cell in results.get("cells", {}).values():
        for label, known in cell["found"].items():
            words = {name: value for name, value in known["facts"].items() if type(value) is str}
            text = ", ".join(f"{name} {value}" for name, value in words.items())
            if text and (label, text) not in seen:
                seen.add((label, text))
                yield f"{label}: {text}"


def _notes(results: dict[str, Any]) -> Iterator[str]:
    for name, cell in results.get("cells", {}).items():
        for label, note in cell["notes"].items():
            yield f"{name}, {label}: {note}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
