"""Runs `--mode report --runs A B …`: compares runs on one page."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from convoy.runtime.report.curves import (
    CHARTS,
    FIGURES,
    best_epoch,
    draw_together,
    figure_text,
    last_epoch,
    state_of,
    title_of,
)
from convoy.runtime.report.training_page import setting_text, tiles
from convoy.runtime.run_folder.history import Run, read_run
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flag_facts import having
from convoy.runtime.settings.flags import Fact
from convoy.runtime.settings.output_paths import comparison_page, plots_of_page
from convoy.utils.errors import ConfigError
from convoy.utils.pages.page import write_page
from convoy.utils.pages.plots import SERIES, check_plots, save_plots


def compare_runs(config: Config) -> dict[str, Any]:
    """Writes a page that compares `--runs`, and its curves as PNGs into a folder beside it.

    Returns:
        `report`, the page's path.

    Raises:
        ConfigError: a folder has no run, or matplotlib is not installed.
    """
    check_plots("--mode report")
    runs = [read_run(folder) for folder in config.runs or []]
    named = list(zip(_names(runs), runs, strict=True))
    page = comparison_page(config)
    pngs = plots_of_page(page)
    if pngs.exists() and not pngs.is_dir():
        raise ConfigError(
            f"--output {config.output or page}: {pngs} is a file, and the folder of the"
            " page's plots would get this name: give another --output"
        )
    histories = [(name, run.history) for name, run in named]
    plots = [
        (f"{chart.name}_{line.figure.replace('.', '_')}", title_of(chart, line), plot)
        for chart in CHARTS
        for line in chart.lines
        if (plot := draw_together(chart, line, histories)) is not None
    ]
    page.parent.mkdir(parents=True, exist_ok=True)
    save_plots(pngs, [(name, plot) for name, _, plot in plots])
    write_page(
        page,
        "comparison.html.j2",
        runs=[
            {
                "name": name,
                "folder": str(run.folder),
                "colour": f"c{number % len(SERIES) + 1}",
                "state": state_of(run, time.time()),
                "tiles": tiles(run),
            }
            for number, (name, run) in enumerate(named)
        ],
        pngs=pngs.name,
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        best=_figures(runs, best=True),
        last=_figures(runs, best=False),
        plots=[(title, plot.svg()) for _, title, plot in plots],
        differences=differences(runs),
    )
    print(f"wrote {page}", flush=True)
    return {"report": str(page)}


def _names(runs: Sequence[Run]) -> list[str]:
    """Returns the folders' names; for equal names, the whole paths."""
    counts = Counter(run.name for run in runs)
    return [run.name if counts[run.name] == 1 else str(run.folder) for run in runs]


def _figures(runs: Sequence[Run], best: bool) -> list[tuple[str, list[str]]]:
    """Returns rows of figures, one value per run: at its best epoch, or its last."""
    chosen = [(best_epoch if best else last_epoch)(run.history) for run in runs]
    values = [
        {} if epoch is None else run.history.epochs[epoch]
        for run, epoch in zip(runs, chosen, strict=True)
    ]
    rows = [("epoch", ["–" if epoch is None else str(epoch) for epoch in chosen])]
    return rows + [
        (words, [figure_text(one, name, share) for one in values])
        for words, name, share in FIGURES
        if any(name in one for one in values)
    ]


def differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Returns the flags in which the runs differ, and each run's value."""
    all_settings = [asdict(run.config) for run in runs]
    return [
        (name, [setting_text(settings[name]) for settings in all_settings])
        for name in all_settings[0]
        if name not in having(Fact.LABEL)
        and any(settings[name] != all_settings[0][name] for settings in all_settings)
    ]
