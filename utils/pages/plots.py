"""Draws plots for pages with matplotlib (extra `report`), in the pages' colours.

In a page, a plot is inline SVG. Its colours are the page's CSS variables, so it follows the
reader's light or dark theme, and its text stays text. A PNG has the light theme's colours.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from convoy.utils.errors import ConfigError
from convoy.utils.extras import how_to_install
from convoy.utils.files import Remote, naming

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The light theme's colours by CSS variable. matplotlib gets the value; in the SVG the variable
# replaces it.
COLOURS = {
    "text": "#1b1f24",
    "dim": "#5c6670",
    "line": "#d9dee4",
    "c1": "#2f6fc6",
    "c2": "#d9660f",
    "c3": "#2b8a57",
    "c4": "#b8418f",
    "c5": "#8659c9",
    "c6": "#8a6a12",
    "c7": "#11849a",
    "c8": "#6b7280",
}
SERIES = [COLOURS[f"c{i}"] for i in range(1, 9)]
"""Colours of curves in order; the CSS variables `--c1` to `--c8`."""

_FONT = "DejaVu Sans"  # comes with matplotlib; wider than most, so other fonts fit too
_STYLE: dict[Any, Any] = {  # the keys that matplotlib's types list
    "font.family": [_FONT],
    "font.size": 11,
    "text.color": COLOURS["text"],
    "text.parse_math": False,  # class names may contain dollar signs
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["dim"],
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.7,
    "xtick.color": COLOURS["dim"],
    "ytick.color": COLOURS["dim"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 6,
    "ytick.major.pad": 5,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 10,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "svg.fonttype": "none",
    "svg.image_inline": True,
    "path.simplify": True,
}


def check_plots(flag: str) -> None:
    """Raises ConfigError with the flag's name if matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise ConfigError(f"{flag} needs the package matplotlib: {how_to_install('report')}")


class Plot:
    """One figure. Draw on `axes` inside a `with` block; then `svg` and `png` return it.

    Args:
        label: describes the plot for those who cannot see it; each plot of a page needs a different
            one.
        width, height: largest size on the page in pixels; a phone shows it a little smaller.

    Example:
        ```
        with Plot("Loss by epoch") as plot:
            plot.axes.plot(epochs, losses, label="training")
            plot.axes.legend()
        page = plot.svg()
        ```
    """

    def __init__(self, label: str, width: int = 380, height: int = 260) -> None:
        from cycler import cycler
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.label = label
        # The label makes names in the SVG different from those of the page's other plots.
        own = {"axes.prop_cycle": cycler(color=SERIES), "svg.hashsalt": label}
        self._style = _STYLE | own
        self._contexts: list[Any] = []
        with self:
            self.figure = Figure((width / 72, height / 72), layout="constrained")
            FigureCanvasAgg(self.figure)
            self.axes: Axes = self.figure.add_subplot()

    def __enter__(self) -> Plot:
        import matplotlib

        context = matplotlib.rc_context(self._style)
        context.__enter__()
        self._contexts.append(context)
        return self

    def __exit__(self, *error: Any) -> None:
        self._contexts.pop().__exit__(*error)

    def svg(self) -> Markup:
        """Returns the figure as an `<svg>` element in the page's colours."""
        stream = StringIO()
        none = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        self._save(stream, format="svg", metadata=none)
        return Markup(_inline(stream.getvalue(), self.label))

    def png(self, scale: float = 2.0) -> bytes:
        """Returns the figure as a PNG on white, with `scale` pixels for each of the page's."""
        stream = BytesIO()
        self._save(stream, format="png", dpi=72 * scale, facecolor="white")
        return stream.getvalue()

    def _save(self, stream: Any, **options: Any) -> None:
        with self, warnings.catch_warnings():
            # Names in other scripts: the browser has the letters that matplotlib's font lacks.
            warnings.filterwarnings("ignore", "Glyph .* missing from")
            self.figure.savefig(stream, **options)


def curves(
    label: str,
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    xlabel: str,
    ylabel: str,
    log: bool = False,
    **size: int,
) -> Plot:
    """Plots curves, each in its colour of `SERIES`; several curves get a legend.

    Args:
        label: see `Plot`.
        series: name → (x, y); NaN in y leaves a gap.
        xlabel: label of the x axis.
        ylabel: label of the y axis.
        log: use a logarithmic y axis.
        **size: `width` and `height` of `Plot`.
    """
    with Plot(label, **size) as plot:
        for name, (x, y) in series.items():
            marker = "o" if len(x) < 3 else None  # a single point draws no line
            plot.axes.plot(x, y, label=name, marker=marker, markersize=4)
        plot.axes.set(xlabel=xlabel, ylabel=ylabel)
        if log:
            plot.axes.set_yscale("log")
            log_axis(plot.axes.yaxis, *plot.axes.get_ylim())
        if len(series) > 1:
            plot.axes.legend()
    return plot


def log_axis(axis: Any, low: float, high: float) -> None:
    """Puts plain numbers on an axis from `low` to `high`: matplotlib's own ticks are formulas."""
    from matplotlib.ticker import LogLocator, NullLocator

    subs = (1, 2, 5) if high < 1000 * low else (1,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}")


def _inline(text: str, label: str) -> str:
    """Converts matplotlib's SVG file to an element of a page."""
    names = {value: f"var(--{name})" for name, value in COLOURS.items()}
    _, _, text = text.partition("<svg")
    head, _, text = text.partition(">")
    # A style sheet would apply to the whole page.
    text = re.sub(r"<style.*?</style>", "", text, flags=re.S)
    text = re.sub(
        r"\b(fill|stroke): (#[0-9a-f]{6})\b",
        lambda found: f"{found[1]}: {names.get(found[2], found[2])}",
        text,
    )
    text = re.sub(rf"""['"]?{_FONT}['"]?(, sans-serif)?""", "system-ui, sans-serif", text)
    # Rename only names that are referenced; the new names include the label.
    used = set(re.findall(r"""(?:url\(|href=")#(\w+)""", text))
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
    text = re.sub(r"\s*<g/>", "", text)
    head = re.sub(r'="([\d.]+)pt"', r'="\1"', head)
    role = f' role="img" aria-label="{escape(label)}" style="stroke-linejoin: round"'
    return f"<svg{head}{role}>{text.strip()}"


def save_plots(folder: Path | Remote, plots: Iterable[tuple[str, Plot]]) -> None:
    """Writes each plot into a folder as a PNG with its name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, plot in plots:
        path = folder / f"{name}.png"
        with naming(path):
            path.write_bytes(plot.png())
