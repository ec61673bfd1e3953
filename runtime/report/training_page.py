"""Writes `report.html`, a page about a training run, from the files in the run's folder.

It is written after training and by `--mode report`, also for runs that were killed or are still
active. The curves are beside it as PNGs, in `report/`.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import numpy as np

from convoy.dataloader.errors import DataError
from convoy.runtime.report.curves import (
    CHARTS,
    FIGURES,
    best_epoch,
    best_score,
    draw,
    duration,
    figure_text,
    last_epoch,
    state_of,
)
from convoy.runtime.run_folder.checkpoint import CheckpointError
from convoy.runtime.run_folder.history import RANK_TIMES, Run, read_run
from convoy.runtime.settings.config import Config, defaults
from convoy.runtime.trackers.workers import Trackers
from convoy.utils.errors import ConfigError
from convoy.utils.files import path_of
from convoy.utils.pages.page import write_page
from convoy.utils.pages.plots import check_plots, save_plots
from convoy.utils.text import tell
from convoy.utils.watchdog import watchdog

PAGE, FOLDER = "report.html", "report"
LARGEST = 320
"""Maximum side of a page's pictures in pixels."""
SLOW = 1.2
"""Factor on the median at which a rank's own passes mark it as slow."""


def report_training(config: Config, trackers: Trackers) -> None:
    """Writes the report of a run that has just ended, and passes it to the trackers.

    Failures are only warnings: the training is done.
    """
    if not config.training_report:
        return
    watchdog.rest("writing the report")
    try:
        trackers.file(write_report(config, trackers)["report"])
    except ConfigError as error:
        tell(f"convoy: no report: {error}")
    except Exception as error:  # noqa: BLE001 — a page must not lose a finished training
        text = f"{type(error).__name__}: {error}"
        tell(f"convoy: WARNING: no report was written ({text})")


def write_report(config: Config, trackers: Trackers | None = None) -> dict[str, str]:
    """Writes the page and the PNGs.

    Args:
        config: the run's folder; the data and the contents to show may differ from the run's own.
        trackers: receive the pictures too.

    Returns:
        `report`, the page's path.

    Raises:
        ConfigError: there is no such run, or matplotlib is not installed.
    """
    check_plots("report.html")
    run = read_run(config.model_dir)
    page = path_of(config.model_dir) / PAGE
    plots = [(chart, draw(chart, run.history)) for chart in CHARTS]
    drawn = [(chart, plot) for chart, plot in plots if plot is not None]
    save_plots(page.parent / FOLDER, [(chart.name, plot) for chart, plot in drawn])
    write_page(
        page,
        "training.html.j2",
        run=run.name,
        folder=str(run.folder),
        arch=run.config.arch,
        state=state_of(run, time.time()),
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        tiles=tiles(run),
        table=best_and_last(run),
        plots=[(chart.title, plot.svg()) for chart, plot in drawn],
        pictures=_pictures(config, run, trackers or Trackers()),
        ranks=rank_table(run),
        settings=settings(run),
        environment=environment(run),
    )
    print(f"wrote {page}", flush=True)
    return {"report": str(page)}


def tiles(run: Run) -> list[tuple[str, str, str]]:
    """Returns the figures at the top: label, value, and a comment."""
    history, config = run.history, run.config
    best, last = best_epoch(history), last_epoch(history)
    found: list[tuple[str, str, str]] = []
    if best is not None:
        name, score = best_score(history.epochs[best])
        whose = f"moving average, epoch {best}" if "ema" in name else f"epoch {best}"
        found.append(("best top-1", f"{score:.2%}", whose))
    if last is not None:
        text = figure_text(history.epochs[last], "train.loss", False)
        found.append(("training loss", text, f"epoch {last}"))
    found.append(("epochs", f"{last or 0}", f"of {config.max_epochs}"))
    _, speed = history.curve("train.total_ips")
    if len(speed):
        ranks = len(run.environment.get("hosts", [])) or 1
        found.append(("images/s", f"{np.median(speed):.4g}", f"median; {_processes(ranks)}"))
    launches = f"in {history.launches} launches" if history.launches > 1 else "of logging"
    found.append(("time", duration(history.seconds), launches))
    return found


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def best_and_last(run: Run) -> dict[str, Any]:
    """Returns the table of figures at the best epoch and the last."""
    history = run.history
    best, last = best_epoch(history), last_epoch(history)
    both = [("best", best), ("last", last)]
    columns = [(name, epoch) for name, epoch in both if epoch is not None]
    epochs = [history.epochs[epoch] for _, epoch in columns]
    rows = [
        (words, [figure_text(values, name, share) for values in epochs])
        for words, name, share in FIGURES
        if any(name in values for values in epochs)
    ]
    return {"columns": [f"{name}, epoch {epoch}" for name, epoch in columns], "rows": rows}


def rank_table(run: Run) -> list[dict[str, Any]]:
    """Returns milliseconds per step of each rank, with slow ranks marked.

    If there are several hosts, each rank's is in the table.
    """
    times = 1000 * run.history.rank_times(RANK_TIMES)
    hosts = _hosts(run)
    if len(times) == 0:
        return []
    own = times[:, 2]
    usual = np.nanmedian(own) if np.isfinite(own).any() else np.nan
    return [
        {
            "rank": rank,
            "host": hosts[rank] if len(hosts) == len(times) else "",
            "times": [f"{t:.1f}" if np.isfinite(t) else "–" for t in row],
            "slow": len(times) > 1 and bool(row[2] > SLOW * usual),
        }
        for rank, row in enumerate(times)
    ]


def _hosts(run: Run) -> list[str]:
    """Returns each rank's host; none if all are the same.

    A page that is passed on need not name it.
    """
    hosts = [str(host) for host in run.environment.get("hosts", [])]
    return hosts if len(set(hosts)) > 1 else []


def settings(run: Run) -> list[tuple[str, str, str, bool]]:
    """Returns every flag, its value, the architecture's default, and whether they differ."""
    usual, own = defaults(run.config.arch), asdict(run.config)
    return [
        (name, setting_text(value), setting_text(usual[name]), value != usual[name])
        for name, value in own.items()
    ]


def setting_text(value: Any) -> str:
    """Formats a setting like a flag's value."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return "–" if value is None else str(value)


def environment(run: Run) -> list[tuple[str, str]]:
    """Returns the run's machine and software, as far as it recorded them."""
    rows: list[tuple[str, str]] = []
    for name, value in run.environment.items():
        if (name == "hosts" and not _hosts(run)) or value is None or value == {}:
            continue  # unknown, or listed under packages
        if name == "packages" and isinstance(value, dict):
            rows += [(package, str(version)) for package, version in value.items()]
        elif name == "memory" and isinstance(value, int):
            rows.append((name, f"{value / 2**30:.1f} GiB"))
        elif isinstance(value, dict):
            text = ", ".join(f"{key} {setting_text(item)}" for key, item in value.items())
            rows.append((f"{name}'s build" if name == "horovod" else name, text))
        elif isinstance(value, list):
            rows.append((name, ", ".join(map(str, dict.fromkeys(value))) or "none"))
        else:
            rows.append((name, setting_text(value)))
    return rows


def _pictures(config: Config, run: Run, trackers: Trackers) -> dict[str, Any]:
    """Returns training images and explained predictions, or notes in place of missing ones."""
    found: dict[str, Any] = {"augmented": [], "explained": [], "notes": [], "checkpoint": ""}
    if not config.report_images:
        return found
    if config.data_backend == "synthetic":
        found["notes"].append("The run's images are made up (--data_backend synthetic): none here.")
        return found
    from convoy.runtime.report import samples

    epoch = max(0, (last_epoch(run.history) or 1) - 1)
    step = max((values.get("step", 0) for values in run.history.epochs.values()), default=0)

    def show_augmented() -> None:
        items = samples.augmented(config, config.report_images, epoch)
        trackers.image("training_images", sheet([item.pixels for item in items]), step)
        found["augmented"] = [
            {"picture": _picture(item.pixels), "lines": item.lines} for item in items
        ]

    def show_explained() -> None:
        items, found["checkpoint"] = samples.explained(config, config.report_images)
        pairs = [np.concatenate([item.pixels, item.heat], axis=1) for item in items]
        trackers.image("grad_cam", sheet(pairs), step)
        found["explained"] = [
            {"picture": _picture(item.pixels), "heat": _picture(item.heat), "item": item}
            for item in items
        ]

    for what, show in (("training images", show_augmented), ("predictions", show_explained)):
        _note_troubles(found["notes"], what, show)
    return found


def _note_troubles(notes: list[str], what: str, show: Callable[[], None]) -> None:
    """Calls `show`; if it fails, notes why: data have moved, or there is no checkpoint yet."""
    try:
        show()
    except (CheckpointError, DataError, ConfigError, OSError, ImportError) as error:
        notes.append(f"No {what}: {error}")
    except Exception as error:  # noqa: BLE001 — for example a full GPU; the page has more to show
        notes.append(f"No {what}: {type(error).__name__}: {error}")


def sheet(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Joins pictures of one size, uint8 `(H, W, 3)`, to one, in rows that make it about square."""
    height, width, _ = pictures[0].shape
    columns = max(1, round((len(pictures) * height / width) ** 0.5))
    black = [np.zeros_like(pictures[0])] * (-len(pictures) % columns)
    rows = np.array([*pictures, *black]).reshape(-1, columns, height, width, 3)
    return rows.transpose(0, 2, 1, 3, 4).reshape(-1, columns * width, 3)


def _picture(pixels: np.ndarray) -> str:
    """Returns a data URL: PNG for small pictures, JPEG for larger ones."""
    from PIL import Image

    image = Image.fromarray(pixels)
    small = max(image.size) <= 128
    image.thumbnail((LARGEST, LARGEST))
    stream = io.BytesIO()
    image.save(stream, "PNG" if small else "JPEG", quality=88)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
