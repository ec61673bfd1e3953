"""Executes notebooks/own_images.ipynb in place, and records which cells ran: `make notebook`."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks" / "own_images.ipynb"


def main() -> None:
    """Runs every cell from a fresh start; does not change the file if one fails."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    # The kernel is this interpreter; `import convoy` finds the package from the root.
    notebook.metadata.kernelspec = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(ROOT)}}).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        cell.metadata.pop("execution", None)  # the time of the run, which would change every time
        for output in cell.outputs:
            if "image/jpeg" in output.get("data", {}):
                output.data.pop("image/png", None)  # the same picture, three times as large
    text = "\0".join(cell.source for cell in code)
    notebook.metadata.convoy = {"code_sha256": hashlib.sha256(text.encode()).hexdigest()}
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, NOTEBOOK)
    print(f"executed {len(code)} cells of {NOTEBOOK.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
