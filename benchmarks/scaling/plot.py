"""Draws the plot of docs/scaling.md as SVG: efficiency on many GPUs relative to one."""

from __future__ import annotations

import math

from benchmarks.scaling.model import FITTED_UP_TO, Fit, Setup, setups

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 56, 170, 24, 44
GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
LOWEST = 0.6  # start of the vertical axis
# Readable on white and on near-black. Okabe and Ito's colours, which colour-blind readers can tell
# apart.
COLOURS = ("#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#009e73", "#cc79a7", "#7f7f7f", "#a08000")
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #333 }
line { stroke: #bbb; stroke-width: 1 }
.fitted { stroke: none }
.held { fill: none; stroke-width: 2 }
polyline { fill: none; stroke-width: 2 }
@media (prefers-color-scheme: dark) { text { fill: #ddd } line { stroke: #555 } }
"""


def _x(n: float) -> float:
    return LEFT + math.log2(n) / math.log2(GPUS[-1]) * (WIDTH - LEFT - RIGHT)


def _y(efficiency: float) -> float:
    return TOP + (1 - efficiency) / (1 - LOWEST) * (HEIGHT - TOP - BOTTOM)


def plot(fitted: Fit) -> str:
    """Returns the SVG: the model as lines, fitted rows as discs, predicted rows as rings."""
    shown = [s for s in setups() if s.arch.startswith("efficientnet")]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        ' aria-label="Throughput per GPU beside that of one GPU, from 1 to 1,024 GPUs">',
        f"<style>{STYLE}</style>",
        *_axes(),
    ]
    ends = []
    for setup, colour in zip(shown, COLOURS, strict=True):
        parts += _curve(fitted, setup, colour)
        ends.append((_y(_efficiency(fitted, setup, GPUS[-1])), setup.name, colour))
    height = -math.inf
    for y, name, colour in sorted(ends):
        height = max(y, height + 15)  # labels one below another, each near its line's end
        place = f'x="{WIDTH - RIGHT + 10}" y="{height + 4:.1f}"'
        parts.append(f'<text {place} style="fill:{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _efficiency(fitted: Fit, setup: Setup, n: int) -> float:
    rate = fitted.predicted(setup, n) if n >= FITTED_UP_TO else fitted.throughput(setup, n)
    return rate / n / setup.published[1]


def _axes() -> list[str]:
    right, parts = WIDTH - RIGHT, []
    for step in range(5):
        share = LOWEST + step * (1 - LOWEST) / 4
        y = _y(share)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    for n in GPUS:
        y = HEIGHT - BOTTOM + 18
        parts.append(f'<text x="{_x(n):.1f}" y="{y}" text-anchor="middle">{n:,}</text>')
    parts.append(
        f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 6}" text-anchor="middle">GPUs</text>'
    )
    return parts


def _curve(fitted: Fit, setup: Setup, colour: str) -> list[str]:
    """Returns the model's curve from 8 GPUs on, and marks for the published rows."""
    line = [n for n in GPUS if n >= FITTED_UP_TO]
    points = " ".join(f"{_x(n):.1f},{_y(_efficiency(fitted, setup, n)):.1f}" for n in line)
    parts = [f'<polyline points="{points}" style="stroke:{colour}"/>']
    for n, rate in setup.published.items():
        place = f'cx="{_x(n):.1f}" cy="{_y(rate / n / setup.published[1]):.1f}" r="4.5"'
        held = n > FITTED_UP_TO
        kind, paint = ("held", "stroke") if held else ("fitted", "fill")
        parts.append(f'<circle {place} class="{kind}" style="{paint}:{colour}"/>')
    return parts
