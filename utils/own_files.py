"""Recognises files that Convoy wrote, so that it replaces no others.

Each kind of file has words near its beginning or its end that people's own files do not have there.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_MARKS = {
    "page": rb'<meta name="generator" content="Convoy">',
    "predictions.jsonl": rb'\A\{"path": ',
    "predictions.csv": rb"\Apath,class_1,probability_1",
    "predictions.parquet": rb"\APAR1.*probability_1",
    "benchmark.json": rb'\A\{\s*"mode": "(training|inference)_benchmark"',
    "benchmark.md": rb"\A# (training|inference)_benchmark: ",
    "evaluation": rb'\A\{\s*"data": \{\s*"data_dir":',
    "log": rb"\ADLLL \{",
    "settings": rb"(?m)^made_in:",
}
_NEAR = 2**16


def is_own(path: Path, kind: str) -> bool:
    """Returns whether a file may be replaced: Convoy wrote it, or there is nothing to lose.

    Args:
        path: the file, which need not exist.
        kind: what Convoy would write there, one of `_MARKS`.
    """
    try:
        with path.open("rb") as file:
            found = file.read(_NEAR)
            if (rest := os.fstat(file.fileno()).st_size - _NEAR) > 0:
                file.seek(max(_NEAR, rest))
                found += file.read()
    except OSError:  # whoever writes it tells that
        return True
    return not found or re.search(_MARKS[kind], found, re.DOTALL) is not None
