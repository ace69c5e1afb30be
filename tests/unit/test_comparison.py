"""What the comparison's figures rest on: CPU time of all of a server's processes, ratios, verdicts."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import picture
from benchmarks.comparison import processes, report
from benchmarks.comparison.cases import CASES, at_least, at_most

BURN = "import time\nwhile time.process_time() < 0.35: pass\n"  # told in ticks, rounded down
SERVER_WHOSE_CHILD_ENDED = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {BURN!r}], check=True)
print("ready", flush=True)
sys.stdin.read()
"""
SERVER_WITH_A_LEFT_CHILD = """
import os, sys
reader, writer = os.pipe()
if os.fork() == 0:
    left = os.fork()
    if left == 0:
        sys.stdin.read()
    else:
        os.write(writer, b"%d" % left)
    os._exit(0)
os.wait()  # from now on there are two
print(os.read(reader, 20).decode(), flush=True)
sys.stdin.read()
"""
SERVER_WITH_SHARED_MEMORY = """
import mmap, sys
shared = mmap.mmap(-1, 8 << 20)
shared.write(bytes(8 << 20))
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def server(code: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and the first line that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        # At the end of the block its standard input is closed: all of its processes end.


def result(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> report.Result:
    return {"baseline": "mosec", "subject": "mosec_cy", "cases": {"echo-64": {"mosec": theirs, "mosec_cy": ours}}}


def run(rps: float, errors: float = 0) -> dict[str, float]:
    return {"rps": rps, "cpu_us": 1.0, "errors": errors}


def test_cpu_time_includes_children_that_ended() -> None:
    with server(SERVER_WHOSE_CHILD_ENDED) as (process, _):
        assert processes.cpu_seconds(process.pid) >= 0.3


def test_a_process_that_lost_its_parent_still_belongs_to_the_server() -> None:
    with server(SERVER_WITH_A_LEFT_CHILD) as (process, left):
        assert {stat.pid for stat in processes.tree(process.pid)} == {process.pid, int(left)}


def test_a_process_that_is_gone_has_no_figures() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert processes.read_stat(process.pid) is None
    assert processes.tree(process.pid) == []


def test_private_and_shared_memory_are_told_apart() -> None:
    with server(SERVER_WITH_SHARED_MEMORY) as (process, _):
        values = processes.memory(process.pid)
        assert 8 << 20 <= values["RssShmem"] < 9 << 20
        assert processes.resident_bytes(process.pid) >= sum(values.values()) - values["RssFile"]


def test_ratios_pair_the_rounds_and_leave_out_failed_ones() -> None:
    failed = {"errors": 1.0}
    assert report.ratios(result([run(40), failed, run(90)], [run(10), run(10), run(30)]), "echo-64", "rps") == [4, 3]


@pytest.mark.parametrize(("ours", "met"), [(run(900), True), (run(899), False), (run(900, errors=1), False)])
def test_a_target_is_met_by_runs_without_errors_only(ours: dict[str, float], met: bool) -> None:
    verdicts = report.verdicts(result([ours], [run(100)]))
    assert [verdict[3] for verdict in verdicts if verdict[1].metric == "rps"] == [met]


def test_a_case_in_which_every_run_failed_misses_its_targets() -> None:
    verdicts = report.verdicts(result([{"errors": 1.0}], [run(100)]))
    assert verdicts
    assert not any(met for *_, met in verdicts)


def test_bounds() -> None:
    assert at_least("rps", 9).met(9)
    assert not at_least("rps", 9).met(8.9)
    assert at_most("cpu_us", 1 / 11).met(1 / 11)
    assert str(at_most("cpu_us", 1 / 11)) == "cpu_us ≤ 1/11"
    assert str(at_least("mean_batch", 7.9, ratio=False)) == "mean_batch ≥ 7.9"


def test_case_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


def test_update_replaces_what_is_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    measured = result([run(900)], [run(100)]) | {
        "versions": {"mosec": "0.9.8"},
        "machine": {"python": "3.11", "cpus": 2, "cpu": "x", "kernel": "6"},
    }
    report.update(page, measured)
    text = page.read_text()
    assert text.startswith(f"before\n{report.BEGIN}\n")
    assert text.endswith(f"{report.END}\nafter\n")
    assert "9.00×" in text
    assert "old" not in text


def test_update_needs_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="measured:begin"):
        report.update(page, result([run(900)], [run(100)]))
    assert page.read_text() == "nothing"


def test_the_picture_shows_what_readme_says() -> None:
    _, gains = picture.table()
    assert len(gains) >= 10
    assert picture.factor("1/23.00") == picture.factor("23.00×") == 23
    assert picture.PICTURE.read_text() == picture.svg(), "run `python benchmarks/picture.py`"
