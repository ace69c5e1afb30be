"""Writing to what may take nothing for a while, or nothing any more."""

from __future__ import annotations

import fcntl
import os
import pty
import queue
import select
import signal
import socket
import threading
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mosec_cy._base import output as output_module
from mosec_cy._base.output import Output
from tests.until import PATIENCE

LONG = 10_000  # bytes of a line that a pipe may take in part
LIMIT = 1 << 18  # bytes that wait at most

Ends = tuple[int, int]


def make_pipe() -> Ends:
    return os.pipe()


def make_terminal() -> Ends:
    reader, writer = pty.openpty()
    tty.setraw(writer)
    return reader, writer


def make_socket() -> Ends:
    reader, writer = socket.socketpair()
    return reader.detach(), writer.detach()


KINDS = [make_pipe, make_terminal, make_socket]


@pytest.fixture(params=KINDS, ids=lambda make: make.__name__)
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    reader, writer = request.param()
    yield reader, writer
    for fd in (reader, writer):
        os.close(fd)


@pytest.fixture
def pipe() -> Iterator[Ends]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


class Watched(Output):
    """`recovered`: the counts that it reported."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.recovered: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.on_recovery = self._on_recovery

    def _on_recovery(self) -> None:
        if lost := self.take_lost():
            self.recovered.put(lost)

    def abandon(self) -> None:
        """Write nothing more: the next test's files may get the numbers of this one's."""
        with self._lock:
            self._waiting.clear()
            if self._sink is not None and self._sink.is_intact():
                self._sink.close()
            self._sink = None
            self._lock = threading.RLock()  # the thread that drains ends when it finds another


Watch = Callable[[int], Watched]


@pytest.fixture
def watch() -> Iterator[Watch]:
    outputs: list[Watched] = []

    def make(number: int) -> Watched:
        outputs.append(Watched(number))
        return outputs[-1]

    yield make
    for output in outputs:
        output.abandon()


def line(number: int, size: int = 100) -> bytes:
    return b"%d " % number + b"x" * size + b"\n"


def read(fd: int, size: int) -> bytes:
    """So many bytes, as they come."""
    data = b""
    while len(data) < size:
        readable, _, _ = select.select([fd], [], [], PATIENCE)
        assert readable, f"{len(data)} of {size} bytes came"
        data += os.read(fd, size - len(data))
    return data


def read_lines(fd: int, until: Callable[[], bool]) -> list[bytes]:
    """All lines that come until the condition holds and nothing more is there."""
    data = b""
    while select.select([fd], [], [], 0.01)[0] or not until():
        data += os.read(fd, 1 << 16) if select.select([fd], [], [], 0)[0] else b""
    return data.splitlines(keepends=True)


def test_lines_arrive(ends: Ends, watch: Watch) -> None:
    reader, writer = ends
    output = watch(writer)
    output.write(line(1))
    assert read(reader, len(line(1))) == line(1)


def test_what_does_not_fit_waits_and_arrives_by_itself(ends: Ends, watch: Watch) -> None:
    reader, writer = ends
    output = watch(writer)
    sent = [line(number, LONG) for number in range(20)]
    for data in sent:
        output.write(data)
    assert read(reader, sum(map(len, sent))) == b"".join(sent)
    assert output.recovered.empty()


def test_lines_beyond_the_limit_are_counted(ends: Ends, watch: Watch) -> None:
    reader, writer = ends
    output = watch(writer)
    sent = [line(number, LONG) for number in range(3 * LIMIT // LONG)]
    for data in sent:
        output.write(data)
    lines = read_lines(reader, lambda: not output.recovered.empty())
    assert lines == sent[: len(lines)]
    assert output.recovered.get() == len(sent) - len(lines)
    output.write(line(1))
    assert read(reader, len(line(1))) == line(1)
    assert output.recovered.empty()


def test_descriptors_of_others_are_left_as_they_are(ends: Ends, watch: Watch) -> None:
    _, writer = ends
    flags = fcntl.fcntl(writer, fcntl.F_GETFL)
    watch(writer).write(line(1))
    assert fcntl.fcntl(writer, fcntl.F_GETFL) == flags


def test_time_out_of_the_program_is_not_waited_for(watch: Watch) -> None:
    reader, writer = make_socket()
    output = watch(writer)
    socket.setdefaulttimeout(1e6)
    try:
        for number in range(3 * LIMIT // LONG):
            output.write(line(number, LONG))
        assert os.get_blocking(writer)
    finally:
        socket.setdefaulttimeout(None)
        output.abandon()
        os.close(reader)
        os.close(writer)


def test_reader_that_leaves_and_another_that_comes(tmp_path: Path, watch: Watch) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY)
    output = watch(writer)
    output.write(line(1))
    assert read(reader, len(line(1))) == line(1)
    os.close(reader)
    for number in range(2, 5):
        output.write(line(number))
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    output.write(line(5))
    assert read(reader, len(line(5))) == line(5)
    assert output.recovered.get(timeout=PATIENCE) == 3
    os.close(reader)
    os.close(writer)


def test_reader_that_leaves_while_lines_wait(pipe: Ends, watch: Watch) -> None:
    reader, writer = pipe
    output = watch(writer)
    for number in range(20):
        output.write(line(number, LONG))
    left = os.dup(writer)
    os.dup2(os.open(os.devnull, os.O_RDONLY), reader)  # closes the only reading end
    output.write(line(1))
    os.close(left)
    output.finish()  # for nothing
    assert not output._waiting


def test_long_lines_of_several_processes_do_not_mix(pipe: Ends, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_module, "_HOLD_TIMEOUT", PATIENCE)  # a busy machine may not run the other for long
    reader, writer = pipe
    outputs = [watch(writer), watch(writer)]  # each with an open file of its own, as in two processes
    for number in range(20):
        for who, output in enumerate(outputs):
            output.write(b"%d:" % who + line(number, LONG if who else 10))
    expected = {b"%d:" % who + line(number, LONG if who else 10) for who in range(2) for number in range(20)}
    received = read(reader, sum(map(len, expected))).splitlines(keepends=True)
    assert set(received) == expected
    assert len(received) == len(expected)


def test_a_line_that_may_be_split_waits_for_writes_under_way(
    pipe: Ends, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_module, "_HOLD_TIMEOUT", PATIENCE)
    reader, writer = pipe
    short, long = watch(writer), watch(writer)
    other = os.open(f"/proc/self/fd/{writer}", os.O_WRONLY | os.O_NONBLOCK)
    try:
        fcntl.flock(other, fcntl.LOCK_SH)
        long.write(line(1, LONG))
        short.write(line(2))
        assert read(reader, len(line(2))) == line(2)
    finally:
        os.close(other)
    assert read(reader, len(line(1, LONG))) == line(1, LONG)


def test_a_reader_that_is_slow_loses_nothing(pipe: Ends, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_module, "_STALLED", PATIENCE)  # how slow it may be is not what is tested
    monkeypatch.setattr(output_module, "_SLOW", PATIENCE)
    output = watch(pipe[1])
    lines = 2000  # several times what may wait
    received = bytearray()

    def read() -> None:
        while received.count(b"\n") < lines and (data := os.read(pipe[0], 4096)):
            received.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(lines):
        output.write(b"%0999d\n" % number)
    reader.join(PATIENCE)
    assert [int(line) for line in received.splitlines()] == list(range(lines))
    assert len(received) == 1000 * lines


def test_a_process_that_was_stopped_amid_a_line_does_not_silence_others(pipe: Ends, watch: Watch) -> None:
    holder = os.open(f"/proc/self/fd/{pipe[1]}", os.O_WRONLY | os.O_NONBLOCK)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        watch(pipe[1]).write(b"a line\n")
        readable, _, _ = select.select([pipe[0]], [], [], PATIENCE)
        assert readable and os.read(pipe[0], 100) == b"a line\n"
    finally:
        os.close(holder)


def test_signal_handlers_write_in_the_midst_of_a_write(tmp_path: Path, watch: Watch) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        output = watch(file.fileno())
        handled = []

        def handle(*_: object) -> None:
            handled.append(None)
            output.write(b"from the handler\n")

        before = signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
        try:
            written = 0
            while len(handled) < 200:
                output.write(b"from the program\n")
                written += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    lines = path.read_bytes().split(b"\n")
    assert (lines.count(b"from the program"), lines.count(b"from the handler")) == (written, len(handled))
    assert len(lines) == written + len(handled) + 1


def test_another_file_on_the_descriptor(pipe: Ends, tmp_path: Path, watch: Watch) -> None:
    reader, writer = pipe
    output = watch(writer)
    output.write(line(1))
    with (tmp_path / "log").open("wb+") as file:
        kept = os.dup(writer)
        os.dup2(file.fileno(), writer)
        output.write(line(2))
        assert file.read() == b""  # at the end of what was written
        file.seek(0)
        assert file.read() == line(2)
    os.dup2(kept, writer)
    os.close(kept)
    output.write(line(3))
    assert read(reader, len(line(1) + line(3))) == line(1) + line(3)


def test_closed_descriptor(pipe: Ends, watch: Watch) -> None:
    reader, writer = pipe
    kept = os.dup(writer)
    output = watch(writer)
    os.close(writer)
    output.write(line(1))
    os.dup2(kept, writer)
    os.close(kept)
    output.write(line(2))
    assert read(reader, len(line(2))) == line(2)
    assert output.recovered.get(timeout=PATIENCE) == 1


def test_own_descriptor_that_the_program_has_closed_and_used_again(pipe: Ends, tmp_path: Path, watch: Watch) -> None:
    reader, writer = pipe
    output = watch(writer)
    output.write(line(1))
    sink = output._sink
    assert sink is not None
    with (tmp_path / "data").open("wb") as file:
        os.dup2(file.fileno(), sink.fd)
        output.write(line(2))
    assert (tmp_path / "data").read_bytes() == b""
    assert read(reader, len(line(1) + line(2))) == line(1) + line(2)
    os.close(sink.fd)


def test_where_no_open_file_of_its_own_is_to_be_had(pipe: Ends, watch: Watch) -> None:
    reader, writer = pipe
    output = watch(writer)
    status = os.fstat(writer)
    output._sink = output_module._PolledSink(writer, (status.st_dev, status.st_ino))
    sent = [line(number, LONG) for number in range(20)]
    for data in sent:
        output.write(data)
    assert read(reader, sum(map(len, sent))) == b"".join(sent)


def test_a_forked_process_does_not_repeat_what_waits(pipe: Ends, watch: Watch) -> None:
    reader, writer = pipe
    output = watch(writer)
    sent = [line(number, LONG) for number in range(20)]
    for data in sent:
        output.write(data)
    child = os.fork()
    if child == 0:
        output.after_fork()
        output.write(line(99))
        output.finish()
        os._exit(0)
    received = read(reader, sum(map(len, sent)) + len(line(99))).splitlines(keepends=True)
    os.waitpid(child, 0)
    assert sorted(received) == sorted([*sent, line(99)])
