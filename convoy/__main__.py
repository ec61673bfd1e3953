"""Runs Convoy's command line: parses it, then runs the mode."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one mode; returns the exit code."""
    if sys.version_info < (3, 10):  # noqa: UP036 — pip checks this, but a checkout has no pip
        return _refuse(f"Python 3.10 or newer is needed, and this is {sys.version.split()[0]}")
    try:
        return _main(argv)
    except KeyboardInterrupt:  # a mode handles it itself
        print("convoy: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has exited (`--help | head`). Without this, Python would report
        # at exit that it cannot flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        from convoy.utils.extras import broken_installation, missing_requirement

        missing = isinstance(error, ModuleNotFoundError) and missing_requirement(error)
        if text := missing or broken_installation(error):
            return _refuse(text)
        raise


def _main(argv: Sequence[str] | None) -> int:
    from convoy.runtime.launch import launch, settle_in
    from convoy.utils.distributed.launched import begin, launched_processes
    from convoy.utils.errors import UserError
    from convoy.utils.signals import EXIT_PREEMPTED, USUAL, Requests, Stopped, stopped_at_once

    args = list(sys.argv[1:] if argv is None else argv)
    # First, because a signal may stop a job before its flags are parsed.
    with Requests(USUAL, exits=True) as requests:
        settle_in()
        with suppress(UserError):  # code that needs the other ranks reports it later
            begin()
        try:
            with requests.at_once(launched_processes() == 1):
                from convoy.runtime.command_line.cli import parse
                from convoy.runtime.command_line.translation import understand
                from convoy.utils.logging import setup_logging
                from convoy.utils.text import printable_output

                printable_output()
                setup_logging()
                config = parse(args, requests)
                args = understand(args)
                if config.nproc:
                    requests.never_exit()
                    return launch(config.nproc, args)
        except Stopped:
            print(f"convoy: {stopped_at_once(requests, 'before its first step')}", file=sys.stderr)
            return EXIT_PREEMPTED
        from convoy.runtime.runner import Runner

        return Runner(config, requests, args).main()


def _refuse(text: str) -> int:
    print(f"convoy: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
