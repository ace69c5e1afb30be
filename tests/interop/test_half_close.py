"""Clients of others that half-close a connection to a real service are answered, however long that takes."""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import h11
import pytest

from tests.accounting import memory
from tests.http_client import Client, chunked
from tests.interop.departures import WATCHFUL
from tests.interop.sse_service import STREAMS
from tests.interop.test_departures import open_gate, post
from tests.service import Serve, Service
from tests.until import PATIENCE


@pytest.fixture
def service(serve: Serve, gate: Path) -> Iterator[Service]:
    service = serve(WATCHFUL, str(gate), "--timeout", "60000").wait_ready()
    with memory(service):
        yield service


async def told(reader: asyncio.StreamReader) -> AsyncIterator[str]:
    """Statuses and data that one request is told, as h11 reads them."""
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method="POST", target="/count", headers=[("host", "test"), ("content-length", "0")]))
    parser.send(h11.EndOfMessage())
    while True:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            parser.receive_data(await asyncio.wait_for(reader.read(1000), PATIENCE))
        elif isinstance(event, h11.Data):
            yield bytes(event.data).decode()
        elif isinstance(event, h11.InformationalResponse | h11.Response):
            yield str(event.status_code)
        else:
            assert isinstance(event, h11.EndOfMessage)
            return


async def talk(service: Service, gate: Path) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(post("hold 1", "/count"))
    writer.write_eof()
    await asyncio.to_thread(service.wait_output, "^run hold 1$")
    words = told(reader)
    assert await anext(words) == "100"  # is it there?
    await asyncio.to_thread(open_gate, gate)
    assert [word async for word in words] == ["200", '"hold 1"']
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


def test_clients_of_the_standard_library(service: Service, gate: Path) -> None:
    asyncio.run(talk(service, gate))
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE)
    connection.request("POST", "/count", body=b'"hold 2"')
    connection.sock.shutdown(socket.SHUT_WR)
    service.wait_output("^run hold 2$")
    open_gate(gate)
    response = connection.getresponse()
    assert (response.status, response.read()) == (200, b'"hold 2"')
    connection.close()


def test_a_pipeline_behind_slow_work(service: Service, gate: Path) -> None:
    for number, first in enumerate([post("hold 0", "/count"), chunked(b'"hold 1"', path="/count")]):
        with Client(service) as client:
            client.send(first + post("second", "/two") + post("third", "/count") + b"POST /count HTTP/1.1\r\n")
            service.wait_output(f"^run hold {number}$")
            client.half_close()
            assert client.answer(interim=True).status == 100
            open_gate(gate)
            assert [client.answer().body for _ in range(3)] == [b'"hold %d"' % number, b'"second"', b'"third"']
            assert client.ended()


def test_a_queue_of_half_closed_clients(service: Service, gate: Path) -> None:
    clients = [Client(service) for _ in range(20)]
    for number, client in enumerate(clients):
        client.send(post(f"hold {number}" if number == 0 else number, "/count"))
        service.wait_output("^run hold 0$")
        client.half_close()
    for client in clients:
        assert client.answer(interim=True).status == 100
    open_gate(gate)
    for number, client in enumerate(clients):
        with client:
            assert client.answer().body == (b'"hold 0"' if number == 0 else b"%d" % number)
            assert client.ended()


def test_a_stream(serve: Serve, gate: Path) -> None:
    service = serve(STREAMS, str(gate), "--timeout", "60000").wait_ready()
    with memory(service), Client(service) as client:
        client.send(post({"texts": ["one"], "then": "gate"}, "/inference"))
        client.half_close()
        open_gate(gate)
        got = b""
        while part := client.socket.recv(1000):
            got += part
        assert got.index(b"data: one") < got.index(b"data: late") < got.index(b"\r\n0\r\n\r\n")
