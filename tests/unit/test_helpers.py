"""By what helpers of workers are recognised, and that a signal reaches no other process. (Services: tests/interop.)"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from mosec_cy._process import helpers


class Started:
    """A program of the test's, in a session and group of its own."""

    def __init__(self, mark: str | None) -> None:
        environment = {**os.environ, **({} if mark is None else {helpers.MARK: mark})}
        self.program = subprocess.Popen(["sleep", "1000"], env=environment, start_new_session=True)
        self.pid = self.program.pid

    def seen(self) -> helpers.Process:
        (process,) = [process for process in helpers.processes(0) or [] if process.pid == self.pid]
        return process


@pytest.fixture
def started() -> Iterator[dict[str | None, Started]]:
    """By mark."""
    programs = {mark: Started(mark) for mark in ("1/2/3/", "1/2/33/", "1/22/3/", None)}
    yield programs
    for program in programs.values():
        program.program.kill()
        program.program.wait()


def ended(program: Started) -> int | None:
    return program.program.wait(30)


def test_a_mark_is_compared_from_its_beginning_to_a_slash(started: dict[str | None, Started]) -> None:
    for mark, whose in (("1/2/3/", {"1/2/3/"}), ("1/2/", {"1/2/3/", "1/2/33/"}), ("2/3/", set())):
        having = {other for other, program in started.items() if program.seen().has_mark(mark.encode())}
        assert having == whose


def test_a_group_counts_in_its_session_only(started: dict[str | None, Started]) -> None:
    program = started[None]
    among = [program.seen()]
    elsewhere = helpers.Family("none/", {program.pid}, os.getsid(0), 0)
    assert elsewhere.look(among) == 0 and not elsewhere.killed
    assert program.program.poll() is None
    here = helpers.Family("none/", {program.pid}, program.pid, 0)
    assert here.look(among) > 0
    assert ended(program) == -signal.SIGKILL


def test_first_a_request_then_an_order(started: dict[str | None, Started]) -> None:
    family = helpers.Family("1/2/3/", set(), 0, grace=1000)
    program = started["1/2/3/"]
    assert family.look(helpers.processes(0)) > 0
    assert ended(program) == -signal.SIGTERM
    assert family.look(helpers.processes(0)) == 0
    assert len(family.told) == 1 and not family.killed
    late = helpers.Family("1/22/3/", set(), 0, grace=1000)
    late.hurry()
    late.look(helpers.processes(0))
    assert ended(started["1/22/3/"]) == -signal.SIGKILL


def test_a_pid_that_another_has_by_now_is_left_alone(started: dict[str | None, Started]) -> None:
    program = started[None]
    gone = program.seen()
    gone.start -= 1  # as if this had been another process, with the same pid
    gone.send(signal.SIGKILL)
    program.seen().send(signal.SIGTERM)
    assert ended(program) == -signal.SIGTERM


def test_processes_older_than_the_service_are_not_looked_at(started: dict[str | None, Started]) -> None:
    seen = started[None].seen()
    assert seen.pid in {process.pid for process in helpers.processes(seen.start) or []}
    assert seen.pid not in {process.pid for process in helpers.processes(seen.start + 1) or []}


def test_descendants() -> None:
    with subprocess.Popen(["sh", "-c", "sh -c 'echo; sleep 1000; :'; :"], stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        while len(below := helpers.descendants([shell.pid], helpers.processes(0) or [])) < 2:
            pass  # the inner shell has yet to start `sleep`
        assert shell.pid not in {process.pid for process in below}
        for process in below:
            process.send(signal.SIGKILL)


def test_a_service_within_a_worker_is_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    outer = helpers.Origin().mark_of(1, 2)
    monkeypatch.setenv(helpers.MARK, outer)
    assert helpers.Origin().mark_of(3, 4).startswith(outer)
