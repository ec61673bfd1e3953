"""Convoy's command line: parse, then run."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one mode. Returns the exit code."""
    from convoy.runtime.cli import parse
    from convoy.utils.text import printable_output

    printable_output()
    config = parse(argv)
    if config.nproc:
        from convoy.runtime.launch import launch

        return launch(config.nproc, sys.argv[1:] if argv is None else argv)
    from convoy.runtime.runner import Runner

    return Runner(config).main()


if __name__ == "__main__":
    sys.exit(main())
