"""Draws README's table of the comparison: `python benchmarks/picture.py` writes docs/comparison.svg."""

import math
import re
from html import escape
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "comparison.svg"
COLUMNS = {"requests a second": 3, "CPU a request": 6}  # of the ratios, by what they are of
COLOURS = {"requests a second": "#3b82c4", "CPU a request": "#4a9d6e"}
TEXT = "#7d8590"  # is read on white and on black
LEFT, WIDTH, BAR, ROW, TOP = 405, 880, 11, 35, 62


class Gain(NamedTuple):
    """How many times better one work is done."""

    work: str
    times: dict[str, float]


def table() -> tuple[str, list[Gain]]:
    """What was compared on which machine, and the gains of the rows that have both ratios."""
    text = (ROOT / "README.md").read_text()
    measured = text[text.index("<!-- measured:begin -->") : text.index("<!-- measured:end -->")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in measured.splitlines() if line[:1] == "|"]
    found = []
    for cells in rows[2:]:
        times = {name: factor(cells[column]) for name, column in COLUMNS.items()}
        if all(times.values()):
            found.append(Gain(cells[0], times))
    return measured.strip().splitlines()[2 if measured.startswith("\n") else 1], found


def factor(cell: str) -> float:
    """`19.91×` and `1/19.91` are both 19.91 times better; what is no ratio is 0."""
    ratio = re.fullmatch(r"(?:1/)?([\d.]+)×?", cell)
    return float(ratio[1]) if ratio else 0.0


def svg() -> str:
    machine, gains = table()
    most = max(times for gain in gains for times in gain.times.values())

    def at(times: float) -> float:
        return LEFT + (WIDTH - LEFT - 60) * math.log(times) / math.log(most)

    height = TOP + ROW * len(gains) + 34
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" '
        f'font-size="13" fill="{TEXT}" role="img" aria-label="How many times better mosec_cy is than Mosec">',
        '<text x="0" y="16" font-size="16" font-weight="600">Times better than Mosec, on the same machine</text>',
    ]
    x = 0
    for name, colour in COLOURS.items():
        lines.append(f'<rect x="{x}" y="28" width="11" height="11" rx="2" fill="{colour}"/>')
        lines.append(f'<text x="{x + 17}" y="38">{name}</text>')
        x += 160
    for times in (1, 2, 5, 10, 20, 50):
        if times <= most:
            foot = TOP + ROW * len(gains)
            lines.append(f'<path d="M{at(times):.1f} {TOP - 8}V{foot}" stroke="{TEXT}" stroke-opacity=".3"/>')
            lines.append(
                f'<text x="{at(times):.1f}" y="{foot + 14}" text-anchor="middle" font-size="11">{times}×</text>'
            )
    for row, gain in enumerate(gains):
        y = TOP + ROW * row
        lines.append(f'<text x="{LEFT - 10}" y="{y + BAR + 4}" text-anchor="end">{escape(gain.work)}</text>')
        for place, (name, times) in enumerate(gain.times.items()):
            top = y + place * (BAR + 1)
            lines.append(
                f'<rect x="{LEFT}" y="{top}" width="{max(at(times) - LEFT, 1):.1f}" height="{BAR}" rx="2" '
                f'fill="{COLOURS[name]}"/>'
            )
            lines.append(f'<text x="{at(times) + 6:.1f}" y="{top + 9.5}" font-size="11">{times:.1f}×</text>')
    lines.append(f'<text x="0" y="{height - 4}" font-size="11">{escape(machine)}</text>')
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(svg())
    print(PICTURE)
