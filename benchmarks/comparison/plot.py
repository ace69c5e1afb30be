"""Picture of a comparison: for each target that is a ratio, how many times better than the baseline the subject is."""

from pathlib import Path
from statistics import median

from .cases import Case, Target
from .report import Result, measured_cases, ratios

LABELS = {"rps": "requests/s", "cpu_us": "CPU a request", "p50_us": "median latency"}
MET, MISSED = "#3b7a57", "#b5523b"


def gains(result: Result, case: Case, target: Target) -> list[float]:
    """Times better, of each round: for what should be low, the inverse of the ratio."""
    return [ratio if target.at_least else 1 / ratio for ratio in ratios(result, case.name, target.metric) if ratio]


def bars(result: Result) -> list[tuple[str, float, list[float]]]:
    """Label, gain to reach, gains of the rounds."""
    found = []
    for case in measured_cases(result):
        for target in case.targets:
            measured = gains(result, case, target)
            if target.ratio and measured:
                goal = target.bound if target.at_least else 1 / target.bound
                found.append((f"{case.title}\n{LABELS[target.metric]}", goal, measured))
    return found


def plot(result: Result, path: Path) -> bool:
    """Writes a PNG file; False, and no file, without matplotlib or without ratios."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = bars(result)
    if not rows:
        return False
    canvas, axes = pyplot.subplots(figsize=(10, 1.2 + 0.55 * len(rows)), layout="constrained")
    for row, (_, goal, measured) in enumerate(rows):
        middle = median(measured)
        axes.barh(row, middle, color=MET if middle >= goal else MISSED, height=0.6)
        axes.plot(measured, [row] * len(measured), "k.", markersize=4)
        axes.plot([goal, goal], [row - 0.4, row + 0.4], color="black", linewidth=2)
        where = (max(*measured, goal, 1), row)
        axes.annotate(f"{middle:.1f}×", where, xytext=(6, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(rows)), [label for label, _, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xticks([1, 2, 5, 10, 20, 50], labels=["1×", "2×", "5×", "10×", "20×", "50×"], minor=False)
    axes.minorticks_off()
    drawn = [gain for _, goal, measured in rows for gain in (1, goal, *measured)]
    axes.set_xlim(0.9 * min(drawn), 1.6 * max(drawn))
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.set_xlabel(f"times better than {result['baseline']} (bar: median, dots: rounds, black line: target)")
    axes.set_title(f"{result['subject']} against {result['baseline']} {result['versions'][result['baseline']]}")
    canvas.savefig(path, dpi=120)
    pyplot.close(canvas)
    return True
