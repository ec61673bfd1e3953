"""Opens a run's log, and writes the summary at its end."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, closing
from dataclasses import asdict
from typing import Any

from convoy.runtime.run_folder.checkpoint import check_writable
from convoy.runtime.settings.config import Config
from convoy.utils.distributed import ranks
from convoy.utils.files import path_of
from convoy.utils.logging import RunLog, make_json_logger


def open_log(config: Config, append: bool = False) -> AbstractContextManager[RunLog]:
    """Opens the run's log on rank 0, and an inert one elsewhere. All ranks must call it.

    It first checks that model_dir is writable. The log's first line has the run's settings.

    Args:
        config: the flags.
        append: continue the existing log.
    """
    ranks.on_rank0(lambda: check_writable(config.model_dir))
    path = path_of(config.model_dir) / config.log_filename if ranks.rank() == 0 else None
    run_log = make_json_logger(path, append=append)
    run_log.parameters(asdict(config))
    return closing(run_log)


def summarise(run_log: Any, figures: dict[str, Any], shown: bool = True) -> dict[str, Any]:
    """Logs the run's summary line, step (), and prints it on rank 0.

    Args:
        run_log: from `open_log`.
        figures: the summary's values by name.
        shown: False: do not print it.
    """
    from convoy.runtime.evaluate import evaluate
    from convoy.runtime.train import journal

    units = evaluate.UNITS | journal.UNITS
    for name in figures:
        if name in evaluate.UNITS:
            run_log.metadata(name, *units[name])
    run_log.log((), figures)
    if shown and ranks.rank() == 0:
        for name, value in figures.items():
            unit, form = units.get(
                name, units.get(name.replace("eval_ema_", "eval_"), (None, ":.4f"))
            )
            text = f"{{{form}}}".format(value) if isinstance(value, float) else str(value)
            if isinstance(value, float) and not math.isfinite(value):
                few = unit == "images/s"
                text = "unknown: too few steps to measure" if few else "not a number"
                unit = ""
            print(f"{name:<42}{text} {unit or ''}".rstrip(), flush=True)
    return figures
