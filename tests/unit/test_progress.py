"""What is told of replicas that are not ready yet; time is an argument."""

import json
import os
from collections.abc import Iterator

import pytest

from mosec_cy._master import progress as progress_module
from mosec_cy._master.progress import LiveBlock, Progress, Report, Row, Step, render
from mosec_cy._master.reactor import Reactor
from tests.interop.screen import Screen


def progress_of(*stages: tuple[str, int]) -> Progress:
    """All replicas of the stages begin at 100 s."""
    progress = Progress()
    names = [(stage, f"<{stage}|{number + 1}>") for stage, count in stages for number in range(count)]
    for key, (stage, name) in enumerate(names):
        progress.begin(key, stage, name, 100.0)
    return progress


def test_each_replica_with_its_step_and_time() -> None:
    progress = progress_of(("Model_1", 2), ("Post_2", 1))
    progress.enter(0, Step.LOADING, 101.0)
    progress.enter(2, Step.WARMING_UP, 104.5)
    assert progress.line("starting", 115.0) == (
        "still starting after 15 s: <Model_1|2> importing for 15 s, <Model_1|1> loading for 14 s, "
        "<Post_2|1> warming up for 10 s (0 of 3 ready)"
    )
    assert progress.is_ready(2, 116.0) == 16.0
    assert progress.line("starting", 116.0).endswith("(1 of 3 ready)")
    assert "Post_2" not in progress.line("starting", 116.0)


def test_a_thousand_replicas_are_one_group() -> None:
    progress = progress_of(("Model_1", 1000))
    for key in range(999):
        progress.enter(key, Step.LOADING, 101.0 + key / 1000)
    assert progress.line("starting", 111.0) == (
        "still starting after 11 s: <Model_1|1000> importing for 11 s, Model_1 × 999 loading for 10 s (0 of 1000 ready)"
    )


def test_many_stages_are_cut_short() -> None:
    progress = progress_of(*((f"Stage_{number}", 2) for number in range(1, 31)))
    line = progress.line("starting", 105.0)
    assert "Stage_8 × 2 importing for 5.0 s and 22 more (0 of 60 ready)" in line
    assert "Stage_9" not in line


def test_a_failed_replica_waits_for_its_next_process() -> None:
    progress = progress_of(("Model_1", 2))
    progress.forget(1)
    progress.fail(1, "Model_1", "<Model_1|2>", 112.0)
    progress.enter(0, Step.LOADING, 101.0)
    assert "<Model_1|2> failed, tried again in 2.0 s" in progress.line("starting", 110.0)
    assert "<Model_1|2> failed, tried again in 0.0 s" in progress.line("starting", 113.0)


def test_it_is_busy_while_something_takes_time_and_counts_from_then() -> None:
    progress = progress_of(("Model_1", 1))
    assert progress.busy
    progress.is_ready(0, 103.0)
    assert not progress.busy
    progress.forget(0)
    progress.fail(0, "Model_1", "<Model_1|1>", 230.0)
    assert not progress.busy  # waiting is nothing to be told of again and again
    progress.begin(0, "Model_1", "<Model_1|1>", 230.0)
    assert progress.line("starting", 371.0).startswith(
        "still starting after 2 min 21 s: <Model_1|1> importing for 2 min"
    )


def test_stages_in_the_block() -> None:
    progress = progress_of(("Model_1", 3), ("Post_2", 1))
    progress.enter(0, Step.LOADING, 101.0)
    progress.is_ready(1, 103.0)
    progress.is_ready(3, 103.0)
    assert progress.rows(104.0) == [Row("Model_1", 1, 3, "1 importing for 4.0 s, 1 loading for 3.0 s")]


def test_a_thousand_that_become_ready_are_a_few_lines(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress_module, "READY_EVERY", 0.0)
    reactor = Reactor()
    report = Report(reactor, lambda: "starting")
    for key in range(1000):
        report.begin(key, "Model_1", f"<Model_1|{key + 1}>")
    for key in range(1000):
        report.enter(key, Step.LOADING)
    for key in range(999):
        report.ready(key, "Model_1", f"<Model_1|{key + 1}>")
    reactor.call_later(0.0, reactor.stop)
    reactor.run()
    reactor.close()
    (line,) = capfd.readouterr().err.splitlines()
    assert "Model_1 × 999 ready after at most" in json.loads(line)["fields"]["message"]
    assert "(999 of 1000)" in line


# ---- on a terminal -----------------------------------------------------------------------------------

ROWS = [Row(f"Stage_{number}", 1, 2, "Stage × 1 loading for 3.0 s " * number) for number in range(1, 9)]


@pytest.mark.parametrize(("width", "height", "shown"), [(100, 20, 8), (100, 6, 4), (40, 9, 8), (25, 3, 1), (80, 1, 0)])
def test_the_block_keeps_within_its_terminal(width: int, height: int, shown: int) -> None:
    pytest.importorskip("rich")
    lines = [Screen().feed(line).lines for line in render("starting, 3.0 s", ROWS, width, height)]
    assert all(len(line) == 1 for line in lines)
    assert len(lines) <= height
    assert all(len(text) < width for (text,) in lines)
    assert sum("ready" in text for (text,) in lines) == shown
    assert lines[0] == ["starting, 3.0 s"]
    if height > 1 and shown < len(ROWS):
        assert lines[-1] == [f"  and {len(ROWS) - shown} more stages"]


def test_the_block_without_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b" in "".join(render("starting, 3.0 s", ROWS, 80, 20))
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in "".join(render("starting, 3.0 s", ROWS, 80, 20))


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """A terminal that nobody reads from but the test."""
    ours, theirs = os.openpty()
    yield ours, os.ttyname(theirs)
    os.close(ours)
    os.close(theirs)


def test_what_others_print_stands_above_the_block(terminal: tuple[int, str]) -> None:
    pytest.importorskip("rich")
    ours, name = terminal
    block = LiveBlock(os.open(name, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))
    screen = Screen()

    def seen() -> list[str]:
        return screen.feed(os.read(ours, 1 << 16).decode().replace("\r\n", "\n")).lines

    block.draw("starting, 1.0 s", ROWS[:2], 1.0)
    assert [line.rstrip() for line in seen()][:3] == ["", "", "⠋ starting, 1.0 s"]
    screen.feed("a first line of the log\x1b[K\na second\x1b[K\nand a third\x1b[K\n")
    block.draw("starting, 2.0 s", ROWS[:2], 2.1)
    assert [line.rstrip() for line in seen()][:6] == [
        "a first line of the log",
        "a second",
        "and a third",
        "",
        "",
        "⠙ starting, 2.0 s",
    ]
    block.clear()
    assert seen() == ["a first line of the log", "a second", "and a third", ""]
    block.close()


def test_a_terminal_that_takes_nothing_has_no_block(terminal: tuple[int, str]) -> None:
    pytest.importorskip("rich")
    block = LiveBlock(os.open(terminal[1], os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))
    for _ in range(10_000):  # until its buffer is full; this would wait for ever if it waited at all
        if not block.works:
            break
        block.draw("starting", ROWS, 0.0)
    assert not block.works
    block.clear()
