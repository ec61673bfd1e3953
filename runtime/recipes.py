"""`python -m convoy.runtime.recipes`: prints recipes. They are in `runtime/settings/recipes.py`."""

from __future__ import annotations

import signal
import sys

from convoy.runtime.settings.recipes import main

if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # the reader may leave early (`| head`)
    sys.exit(main())
