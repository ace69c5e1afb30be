"""Crowds of clients that send or read next to nothing: dropped in time, and nobody else notices them."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import json
import select
import time
from collections.abc import Callable, Iterator

import pytest

from tests.accounting import memory, status, wait_until
from tests.crowd import descriptors, dribble
from tests.engine import MIB
from tests.http_client import Client, receive_all, request
from tests.load import drive, exchange
from tests.programs import ECHO, LARGE
from tests.service import Serve
from tests.until import until


def answered(expected: bytes) -> Callable[[int, bytes], bool]:
    return lambda code, body: (code, body) == (200, expected)


@contextlib.contextmanager
def meanwhile(port: int, *works: Callable[[], object]) -> Iterator[list[float]]:
    """Carries `works` out in threads; one client after another is served until they are done. Their times, in s."""
    taken = []
    with concurrent.futures.ThreadPoolExecutor(len(works)) as pool:
        futures = [pool.submit(work) for work in works]
        while not all(future.done() for future in futures):
            start = time.monotonic()
            drive(port, [exchange("/inference", b"[%d]" % len(taken), answered(b"[%d]" % len(taken)))], 1)
            taken.append(time.monotonic() - start)
        for future in futures:
            future.result()
    yield sorted(taken)


def test_crowds_that_dribble(serve: Serve) -> None:
    """500 heads and 500 bodies of a byte now and then."""
    with descriptors(4096):
        service = serve(ECHO, "--header-timeout", "1500", "--body-timeout", "1500").wait_ready()
        length = b"POST /inference HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n"
        chunks = b"POST /inference HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        crowds = [
            (500, b"GET / HTTP/1.1\r\nhost: x\r\nx: ", b"y"),
            (250, length, b"z"),
            (250, chunks, b"1\r\nz\r\n"),
        ]
        said = {}

        def crowd(count: int, begin: bytes, drop: bytes) -> None:
            said[begin] = dribble(service.port, count, begin, drop)

        with memory(service):
            works = [lambda each=each: crowd(*each) for each in crowds]  # type: ignore[misc]
            with meanwhile(service.port, *works) as taken:
                print(f"{len(taken)} others: median {taken[len(taken) // 2]:.4f} s, longest {taken[-1]:.4f} s")
            for count, begin, _ in crowds:
                assert said[begin] == {b"HTTP/1.1 408 Request Timeout": count}


def test_a_crowd_that_reads_nothing(serve: Serve) -> None:
    """Its answers are held no longer than the write time-out; also where somebody takes a byte now and then."""
    service = serve(LARGE, "--budget", str(512 * MIB), "--write-timeout", "500", "--timeout", "30000").wait_ready()
    with memory(service) as segment, contextlib.ExitStack() as stack:
        size = 15 * MIB
        clients = [stack.enter_context(Client(service)) for _ in range(8)]
        for client in clients:
            client.send(request(b"%d" % size))
        wait_until(segment, lambda stats: sum(stats["routes"][0]) == 8)  # all are answered, as far as it goes
        with Client(service) as other:
            assert len(other.ask(request(b"1000")).body) == 1000
            while segment.stats()["charged"]:
                for client in clients[::2]:
                    client.socket.recv(1)
                assert len(other.ask(request(b"1000")).body) == 1000
                select.select([], [], [], 0.02)  # their pace
        wait_until(segment, lambda stats: stats["connections"] == 0)  # and nobody of them has closed
        for client in clients:  # nor does the kernel hold anything for them
            with pytest.raises(ConnectionResetError):
                receive_all(client.socket)


def test_who_pipelines_without_reading_is_held_up_and_dropped(serve: Serve) -> None:
    """Its requests wait in its own socket, not in the service."""
    service = serve(LARGE, "--write-timeout", "500").wait_ready()
    core = service.wait_process("mosec_cy: core")
    with memory(service) as segment, service.connect() as client:
        many = request(b"10000") * 1000
        most = before = status(core, "RssAnon")
        charged = sent = 0
        client.setblocking(False)
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while sent < 1 << 30:  # far more than what it can get rid of
                select.select([], [client], [], 0.05)
                with contextlib.suppress(BlockingIOError):
                    sent += client.send(many)
                stats = segment.stats()
                assert stats["remaining"] <= 1
                charged = max(charged, stats["charged"])
                most = max(most, status(core, "RssAnon"))
        print(f"{sent >> 10} KiB sent; charged {charged} B, core grew by {most - before} KiB")
        assert sent < 1 << 30
        assert charged <= 128 * 1024
        assert most - before < 4096


def test_a_crowd_that_declares_much_and_sends_little(serve: Serve) -> None:
    """Uploads that hold all memory for bodies make way: who comes is served long before their time-outs."""
    service = serve(ECHO, "--budget", str(64 * MIB), "--body-timeout", "8000").wait_ready()
    head = b"POST /inference HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (3 * MIB)
    with memory(service) as segment, contextlib.ExitStack() as stack:
        for _ in range(40):
            client = stack.enter_context(Client(service))
            client.send(head)
        body = json.dumps("x" * 2 * MIB).encode()
        begun = time.monotonic()
        statuses: collections.Counter[int] = collections.Counter()

        def served() -> bool:
            with Client(service) as other:
                answer = other.post(body)
            statuses[answer.status] += 1
            assert answer.status == 503 or answer.outcome == (200, body)
            return answer.status == 200

        until(served)
        assert segment.stats()["charged"] > 0  # others of them are still there
        print(f"served after {time.monotonic() - begun:.2f} s, {statuses[503]} refusals")
