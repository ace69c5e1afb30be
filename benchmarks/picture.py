"""Draws README's table of the comparison: `python benchmarks/picture.py` writes docs/comparison.svg."""

import re
import textwrap
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "comparison.svg"
COLUMNS = {"requests a second": 3, "CPU a request": 6}  # of the ratios, by what they are of
WIDTH, MARGIN, TOP, ROW, BAR = 460, 14, 60, 29, 5
STEP = 5  # of the axis

# Browsers tell a picture the theme of the page that shows it; a viewer that does not shows the light one.
STYLE = """<style>
.paper { fill: #ffffff } .ink { fill: #0f172a } .faint { fill: #475569 } .line { stroke: #cbd5e1 }
.gain0 { fill: #1d6fb8 } .gain1 { fill: #2f7d4f }
@media (prefers-color-scheme: dark) {
.paper { fill: #1b1f24 } .ink { fill: #e6edf3 } .faint { fill: #a9b4c0 } .line { stroke: #3d4550 }
.gain0 { fill: #5aa9ee } .gain1 { fill: #5cb885 }
}
</style>"""


class Gain(NamedTuple):
    """How many times better one work is done."""

    work: str
    times: dict[str, float]


def table() -> tuple[str, list[Gain]]:
    """What was compared on which machine, and the gains of the rows that have both ratios."""
    _, _, rest = (ROOT / "README.md").read_text().partition("<!-- measured:begin -->\n")
    measured = rest.partition("<!-- measured:end -->")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in measured if line.startswith("|")]
    found = []
    for cells in rows[2:]:
        times = {name: factor(cells[column]) for name, column in COLUMNS.items()}
        if all(times.values()):
            found.append(Gain(cells[0], times))
    return measured[0], found


def factor(cell: str) -> float:
    """`19.91×` and `1/19.91` are both 19.91 times better; what is no ratio is 0."""
    ratio = re.fullmatch(r"(?:1/)?([\d.]+)×?", cell)
    return float(ratio[1]) if ratio else 0.0


def label(x: float, y: float, text: str, kind: str, size: int = 11, more: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" font-size="{size}"{more}>{escape(text)}</text>'


def rows(gains: list[Gain], scale: float) -> Iterator[str]:
    """For each work its name, its gains in figures at the right, and a bar for each below."""
    for row, gain in enumerate(gains):
        y = TOP + ROW * row
        yield label(MARGIN, y + 10, gain.work, "ink")
        for place, times in enumerate(gain.times.values()):
            right = WIDTH - MARGIN - 45 * (len(gain.times) - 1 - place)
            yield label(right, y + 10, f"{times:.1f}×", f"gain{place}", more=' font-weight="600" text-anchor="end"')
            top = y + 14 + place * (BAR + 1)
            shape = f'x="{MARGIN}" y="{top}" width="{times * scale:.1f}" height="{BAR}" rx="1.5"'
            yield f'<rect {shape} class="gain{place}"/>'


def svg() -> str:
    machine, gains = table()
    most = max(times for gain in gains for times in gain.times.values())
    scale = (WIDTH - 2 * MARGIN) / most
    foot = TOP + ROW * len(gains)
    notes = textwrap.wrap(machine, 76)
    height = foot + 22 + 13 * len(notes) + 4
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="system-ui, sans-serif" role="img" aria-label="How many times better mosec_cy is than Mosec">',
        STYLE,
        f'<rect width="{WIDTH}" height="{height}" rx="10" class="paper"/>',
        label(MARGIN, 24, "Times better than Mosec on the same machine", "ink", 14, ' font-weight="600"'),
    ]
    for place, name in enumerate(COLUMNS):
        x = MARGIN + 150 * place
        lines.append(f'<rect x="{x}" y="35" width="10" height="10" rx="2" class="gain{place}"/>')
        lines.append(label(x + 15, 44, name, "faint"))
    for times in (1, *range(STEP, int(most) + 1, STEP)):
        x = round(MARGIN + times * scale, 1)
        lines.append(f'<path d="M{x:g} {TOP}V{foot}" class="line"/>')
        lines.append(label(x, foot + 13, f"{times}×", "faint", 10, ' text-anchor="middle"'))
    lines += rows(gains, scale)
    lines += [label(MARGIN, foot + 31 + 13 * line, note, "faint", 10) for line, note in enumerate(notes)]
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(svg())
    print(PICTURE)
