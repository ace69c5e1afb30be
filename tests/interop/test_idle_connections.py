"""Ten thousand connections on which nothing happens: what they cost, and how they end."""

from __future__ import annotations

import contextlib
import time

import pytest

from tests.accounting import assert_at_most, memory, memory_of, status, wait_until
from tests.crowd import descriptors
from tests.http_client import Client, get, request
from tests.load import drive, exchange
from tests.programs import ECHO
from tests.service import Serve

MANY = 10_000


@pytest.mark.timeout(120)
def test_ten_thousand_idle_connections(serve: Serve) -> None:
    with descriptors(MANY + 2000), contextlib.ExitStack() as stack:
        patience = str(600_000)
        service = serve(
            ECHO, "--max-connections", str(MANY + 100), "--header-timeout", patience, "--idle-timeout", patience
        ).wait_ready()
        core = service.wait_process("mosec_cy: core")
        with contextlib.closing(memory_of(service)) as segment:
            drive(service.port, [exchange("/inference", b"1", lambda code, _: code == 200)] * 100, 10)
            before = status(core, "RssAnon")
            start = time.monotonic()
            clients = [stack.enter_context(service.connect()) for _ in range(MANY)]
            for number, client in enumerate(clients):  # silent ones, idle ones, and pieces of heads
                client.sendall([b"", get(), b"POST /inference HTTP/1.1\r\nhost: "][number % 3])
            for client in clients[1::3]:
                assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
            opened = time.monotonic() - start
            wait_until(segment, lambda stats: stats["connections"] == MANY)
            cost = status(core, "RssAnon") - before
            assert cost < MANY  # KiB
            start = time.monotonic()
            counts = drive(
                service.port, [exchange("/inference", b"[2]", lambda code, body: (code, body) == (200, b"[2]"))] * 2000
            )
            served = time.monotonic() - start
            assert counts == {200: 2000}
            assert_at_most(0, core)
            for client in clients[2::300]:  # they can go on where they were
                client.sendall(request(b"3").partition(b"host: ")[2])
                assert client.recv(1000).endswith(b"\r\n\r\n3")
            print(f"opened in {opened:.2f} s; {cost} KiB, {cost * 1024 // MANY} B each; 2000 others in {served:.2f} s")
            start = time.monotonic()
            service.stop()
            print(f"shut down in {time.monotonic() - start:.2f} s")
            assert segment.blocks() == (0, 0)
            for client in clients:
                with contextlib.suppress(ConnectionResetError):
                    assert client.recv(1) == b""


def test_idle_connections_end_at_their_time_outs(serve: Serve) -> None:
    with descriptors(4096), contextlib.ExitStack() as stack:
        service = serve(ECHO, "--header-timeout", "1000", "--idle-timeout", "1000").wait_ready()
        core = service.wait_process("mosec_cy: core")
        with memory(service) as segment:
            with Client(service) as client:
                assert client.ask(get()).status == 200
            wait_until(segment, lambda stats: stats["connections"] == 0)
            held = service.descriptors(core)
            clients = [stack.enter_context(service.connect()) for _ in range(2000)]
            for client in clients[1::2]:
                client.sendall(get())
            answers = []
            for client in clients:
                parts = []
                while part := client.recv(1000):
                    parts.append(part)
                answers.append(b"".join(parts))
            assert not any(answers[::2])  # to who has said nothing nothing is said
            assert {answer.partition(b"\r\n")[0] for answer in answers[1::2]} == {b"HTTP/1.1 200 OK"}
            wait_until(segment, lambda stats: stats["connections"] == 0)
            assert service.descriptors(core) == held
