"""Draws what waiting for one task more gains: `python benchmarks/batching_picture.py` writes docs/batching.svg."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.picture import ROOT, label

PICTURE = ROOT / "docs" / "batching.svg"
FINEST = 0.002048  # ms, upper edge of the first bin of gaps
BINS = 22
FIXED = 2.0  # ms a batch, whatever is in it
THINK = 0.1  # ms from an answer to the next request of its client, on average
WIDTH, HEIGHT, LEFT, RIGHT, TOP, FOOT = 640, 360, 46, 16, 112, 44
LEAST, MOST = -1.0, 2.0  # ms, of the axis of gains

# Browsers tell a picture the theme of the page that shows it; a viewer that does not shows the light one.
STYLE = """<style>
.paper { fill: #ffffff } .ink { fill: #0f172a } .faint { fill: #475569 }
.line { stroke: #cbd5e1 } .zero { stroke: #475569 } .curve { fill: none; stroke-width: 2 }
.c0 { stroke: #1d6fb8 } .c1 { stroke: #2f7d4f } .c2 { stroke: #b45309 } .c3 { stroke: #9f1239 }
.f0 { fill: #1d6fb8 } .f1 { fill: #2f7d4f } .f2 { fill: #b45309 } .f3 { fill: #9f1239 }
@media (prefers-color-scheme: dark) {
.paper { fill: #1b1f24 } .ink { fill: #e6edf3 } .faint { fill: #a9b4c0 }
.line { stroke: #3d4550 } .zero { stroke: #a9b4c0 }
.c0 { stroke: #5aa9ee } .c1 { stroke: #5cb885 } .c2 { stroke: #e0a458 } .c3 { stroke: #f08a9b }
.f0 { fill: #5aa9ee } .f1 { fill: #5cb885 } .f2 { fill: #e0a458 } .f3 { fill: #f08a9b }
}
</style>"""

Point = tuple[float, float]


class Stage(NamedTuple):
    """What a stage with one replica has learnt: ms a batch, ms a task, tasks a ms while there is work."""

    fixed: float
    slope: float
    rate: float


class Curve(NamedTuple):
    """Hold and expected gain (ms)."""

    name: str
    points: list[Point]


def gains(stage: Stage, waiting: int, back: int, shares: Sequence[float]) -> Iterator[Point]:
    """(hold, expected gain), ms, for a hold that ends with each bin of gaps; `shares`: of gaps, by bin.

    As `_hold` in src_pyx/mosec_cy/_engine/former.pyx.
    """
    free_in = stage.fixed + stage.slope * waiting
    beside = min(max(stage.rate * free_in, back, 1), waiting + 1)
    seen = won = 0.0
    for bin, share in enumerate(shares):
        gap = FINEST * 2**bin
        if gap > stage.fixed:
            break
        seen += share
        won += share * (free_in + stage.slope * (beside - waiting - 1) - gap - waiting * (gap + stage.slope))
        yield gap, won - (1 - seen) * waiting * gap


def best(points: Sequence[Point]) -> Point:
    """The hold that gains most, and what it gains; (0, 0): none does."""
    return max([(0.0, 0.0), *points], key=lambda point: point[1])


def by_chance(mean: float) -> list[float]:
    """Shares of the bins where gaps are exponential with that mean (ms)."""
    below = [1 - math.exp(-FINEST * 2**bin / mean) for bin in range(BINS)]
    return [after - before for before, after in zip([0.0, *below], below, strict=False)]


def curves() -> list[Curve]:
    clients = Stage(FIXED, 0, 8 / (FIXED + THINK))
    return [
        Curve("8 clients: 1 is back, 7 are still out", list(gains(clients, 1, 7, by_chance(THINK / 7)))),
        Curve("8 clients: 7 are back, 1 is still out", list(gains(clients, 7, 1, by_chance(THINK)))),
        Curve("by chance, one each 1 ms: 1 waits", list(gains(Stage(FIXED, 0, 1), 1, 0, by_chance(1)))),
        Curve("by chance, one each 4 ms: 1 waits", list(gains(Stage(FIXED, 0, 0.25), 1, 0, by_chance(4)))),
    ]


def place(point: Point) -> Point:
    """Of (hold, gain) in the picture."""
    hold, gain = point
    octave = math.log2(hold / FINEST) if hold else 0
    steps = math.floor(math.log2(FIXED / FINEST))
    x = LEFT + (WIDTH - LEFT - RIGHT) * octave / steps
    return x, HEIGHT - FOOT - (HEIGHT - FOOT - TOP) * (gain - LEAST) / (MOST - LEAST)


def axes() -> Iterator[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - FOOT
    for gain in (-1, -0.5, 0, 0.5, 1, 1.5, 2):
        y = place((FINEST, gain))[1]
        yield f'<path d="M{LEFT} {y:g}H{right}" class="{"line" if gain else "zero"}"/>'
        yield label(LEFT - 6, y + 4, f"{gain:g}", "faint", 10, ' text-anchor="end"')
    for bin in range(0, BINS, 2):
        x = place((FINEST * 2**bin, 0))[0]
        if x <= right:
            yield f'<path d="M{x:g} {TOP}V{bottom}" class="line"/>'
            yield label(x, bottom + 14, f"{FINEST * 2**bin * 1000:.0f}", "faint", 10, ' text-anchor="middle"')
    yield label(right, bottom + 32, "batch is held for at most … µs", "faint", 11, ' text-anchor="end"')
    yield label(LEFT, TOP - 8, "ms gained on average, all tasks together", "faint", 11)


def drawn(number: int, curve: Curve) -> Iterator[str]:
    x, y = LEFT + 300 * (number % 2), 47 + 30 * (number // 2)
    hold, gain = best(curve.points)
    says = f"held for at most {hold * 1000:.0f} µs" if hold else "goes at once"
    yield f'<rect x="{x}" y="{y - 9}" width="10" height="10" rx="2" class="f{number}"/>'
    yield label(x + 15, y, curve.name, "ink")
    yield label(x + 15, y + 13, says, f"f{number}")
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, curve.points) if y <= HEIGHT - FOOT)
    yield f'<polyline points="{places}" class="curve c{number}"/>'
    if hold:
        x, y = place((hold, gain))
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="f{number}"/>'


def svg() -> str:
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="system-ui, sans-serif" role="img" aria-label="Expected gain of holding a batch, by its length">',
        STYLE,
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="10" class="paper"/>',
        label(14, 24, "A batch takes 2 ms, whatever is in it: how long is it held?", "ink", 14, ' font-weight="600"'),
        *axes(),
    ]
    for number, curve in enumerate(curves()):
        lines += drawn(number, curve)
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(svg())
    print(PICTURE)
