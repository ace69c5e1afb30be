"""Tables of a comparison. A result is a plain dictionary, as it is kept in the JSON file."""

from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from .cases import CASES, Case, Target

Result = dict[str, Any]
"""{"baseline", "subject", "machine", "versions", "cases": {case: {peer: [metrics of each round]}}}"""

BEGIN, END = "<!-- measured:begin -->", "<!-- measured:end -->"

COLUMNS = {
    "rps": ("requests/s", "{:,.0f}"),
    "cpu_us": ("CPU µs/request", "{:,.1f}"),
    "p50_us": ("p50 µs", "{:,.0f}"),
    "p99_us": ("p99 µs", "{:,.0f}"),
    "rss_mb": ("RSS MB", "{:,.0f}"),
    "mean_batch": ("mean batch", "{:.2f}"),
    "core_mb": ("core MB", "{:.1f}"),
    "idle_1000_mb": ("1,000 idle, MB", "{:.2f}"),
}


def values(result: Result, case: str, peer: str, metric: str) -> list[float]:
    runs: list[dict[str, float]] = result["cases"].get(case, {}).get(peer, [])
    return [run[metric] for run in runs if metric in run]


def ratios(result: Result, case: str, metric: str) -> list[float]:
    """The subject to the baseline, of each round that both came through."""
    runs = result["cases"].get(case, {})
    pairs = zip(runs.get(result["subject"], []), runs.get(result["baseline"], []))
    return [ours[metric] / theirs[metric] for ours, theirs in pairs if metric in ours and theirs.get(metric)]


def errors(result: Result, case: str, peer: str) -> float:
    """Requests without a good answer; a run that failed altogether counts as one."""
    runs: list[dict[str, float]] = result["cases"][case].get(peer, [])
    return sum(run["errors"] for run in runs)


def figure(result: Result, case: Case, target: Target) -> float | None:
    """What the target bounds: the median ratio, or the subject's own median; None where it was not measured."""
    if target.ratio:
        numbers = ratios(result, case.name, target.metric)
    else:
        numbers = values(result, case.name, result["subject"], target.metric)
    return median(numbers) if numbers else None


def factor(value: float) -> str:
    return f"{value:.2f}×" if value >= 1 else f"1/{1 / value:.2f}" if value else "0"


def markdown(rows: Iterable[Iterable[str]]) -> str:
    """Rows, the first of them the heading, as an aligned Markdown table."""
    cells = [list(row) for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def measured_cases(result: Result) -> list[Case]:
    return [case for case in CASES if case.name in result["cases"]]


def case_table(result: Result, case: Case) -> str:
    """A row for each peer with its medians, and one with the medians of the ratios of each round."""
    runs = result["cases"][case.name]
    shown = [metric for metric in COLUMNS if any(metric in run for peer in runs for run in runs[peer])]
    rows = [["", *(COLUMNS[metric][0] for metric in shown), "errors"]]
    for peer in runs:
        cells = [values(result, case.name, peer, metric) for metric in shown]
        bad = errors(result, case.name, peer)
        texts = [COLUMNS[metric][1].format(median(cell)) if cell else "–" for metric, cell in zip(shown, cells)]
        rows.append([peer, *texts, f"{bad:.0f}" + (" !" if bad else "")])
    compared = [ratios(result, case.name, metric) for metric in shown]
    label = f"{result['subject']} / {result['baseline']}"
    rows.append([label, *(factor(median(ratio)) if ratio else "–" for ratio in compared), ""])
    rounds = max((len(runs[peer]) for peer in runs), default=0)
    return f"### {case.title} (`{case.name}`, {rounds} rounds)\n\n{markdown(rows)}"


def verdicts(result: Result) -> list[tuple[Case, Target, float | None, bool]]:
    """Each target of each measured case, its figure, and whether it is met by runs without errors."""
    found = []
    for case in measured_cases(result):
        clean = not errors(result, case.name, result["subject"])
        for target in case.targets:
            value = figure(result, case, target)
            found.append((case, target, value, value is not None and clean and target.met(value)))
    return found


def target_table(result: Result) -> str:
    rows = [["work", "target", "reached", "range", ""]]
    for case, target, value, met in verdicts(result):
        if target.ratio:
            spread = ratios(result, case.name, target.metric)
        else:
            spread = values(result, case.name, result["subject"], target.metric)
        show = factor if target.ratio else "{:.2f}".format
        reached = show(value) if value is not None else "–"
        extent = f"{show(min(spread))} … {show(max(spread))}" if spread else "–"
        rows.append([case.title, str(target), reached, extent, "met" if met else "MISSED"])
    return markdown(rows)


def summary_table(result: Result) -> str:
    """One row a work: requests a second, CPU and latency of both, and how they compare."""
    baseline, subject = result["baseline"], result["subject"]
    rows = [["work"]]
    metrics = ("rps", "cpu_us", "p50_us")
    for metric in metrics:
        rows[0] += [f"{COLUMNS[metric][0]}: {baseline}", subject, "ratio"]
    for case in measured_cases(result):
        row = [case.title]
        for metric in metrics:
            both = [values(result, case.name, peer, metric) for peer in (baseline, subject)]
            row += [COLUMNS[metric][1].format(median(numbers)) if numbers else "–" for numbers in both]
            compared = ratios(result, case.name, metric)
            row.append(factor(median(compared)) if compared else "–")
        if any(cell != "–" for cell in row[1:]):
            rows.append(row)
    return markdown(rows)


def heading(result: Result) -> str:
    """What was measured where, and whether it had the machine for itself."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    machine = result["machine"]
    runs = [run for peers in result["cases"].values() for peer in peers.values() for run in peer]
    foreign = [run["foreign_cpu"] for run in runs if "foreign_cpu" in run]
    busy = f"; other programs took {median(foreign):.2f} CPUs meanwhile (median)" if foreign else ""
    python, cpus, cpu, kernel = (machine[key] for key in ("python", "cpus", "cpu", "kernel"))
    return f"{versions}; Python {python}, {cpus} × {cpu}, Linux {kernel}{busy}."


def text(result: Result) -> str:
    """All of it, as Markdown."""
    tables = [case_table(result, case) for case in measured_cases(result)]
    summary = ["## Summary", summary_table(result), "## Targets", target_table(result)]
    return "\n\n".join([heading(result), *tables, *summary])


def update(path: Path, result: Result) -> None:
    """Replaces what is between the marks; raises ValueError where there are none."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"{path} has no {BEGIN} … {END}")
    measured = f"{heading(result)}\n\n{summary_table(result)}"
    path.write_text(f"{before}{BEGIN}\n{measured}\n{END}{after}")
