"""Clients that leave a real service, by FIN and by RST: what they asked is not run, and what runs is told."""

from __future__ import annotations

import contextlib
import itertools
import json
from pathlib import Path

from mosec_cy._engine.segment import Segment
from tests.accounting import memory, wait_until
from tests.engine import MIB
from tests.http_client import Client, chunked, request
from tests.interop.departures import WATCHFUL
from tests.interop.sse_service import STREAMS
from tests.service import Serve, Service


def post(body: object, path: str) -> bytes:
    return request(json.dumps(body).encode(), path)


def start(serve: Serve, gate: Path, *arguments: str) -> Service:
    return serve(WATCHFUL, str(gate), "--timeout", "60000", *arguments).wait_ready()


def open_gate(gate: Path) -> None:
    with gate.open("w"):  # waits until somebody reads there
        pass


def runs(service: Service) -> list[str]:
    return [line for line in service.lines if line.startswith("run ")]


def wait_inside(segment: Segment, count: int) -> None:
    """Until so many requests wait for an answer."""
    wait_until(segment, lambda stats: stats["remaining"] == count)


BEHIND = [b"", post("behind", "/count") * 3, b"POST /count HT"]  # sent after the request that is meant
WAYS = list(itertools.product(["leave", "reset"], BEHIND))  # of a Client


def test_who_leaves_a_queue_is_never_run_and_takes_up_no_capacity(serve: Serve, gate: Path) -> None:
    service = start(serve, gate, "--capacity", "1")
    with memory(service) as segment, Client(service) as holding, Client(service) as other:
        for number, (how, behind) in enumerate(WAYS):
            holding.send(post(f"hold {number}", "/count"))
            service.wait_output(f"^run hold {number}$")
            gone = Client(service)
            gone.send(post("gone", "/count") + behind)
            wait_inside(segment, 2)
            assert other.ask(post("refused", "/count")).status == 429
            getattr(gone, how)()
            wait_inside(segment, 1)
            other.send(post("stays", "/count"))
            wait_inside(segment, 2)
            open_gate(gate)
            assert holding.answer().status == 200
            assert other.answer().body == b'"stays"'
        assert segment.stats()["late"] == 0
    service.stop()
    assert runs(service) == [f"run {who}" for number in range(len(WAYS)) for who in (f"hold {number}", "stays")]


def test_who_leaves_between_two_stages_is_not_run_by_the_second(serve: Serve, gate: Path) -> None:
    service = start(serve, gate)
    with memory(service) as segment, Client(service) as holding, Client(service) as other:
        holding.send(post("hold", "/two"))
        service.wait_output("^run hold$")
        leaving = [Client(service) for _ in range(20)]
        for number, client in enumerate(leaving):
            client.send(post(f"gone {number}", "/two"))
        other.send(post("stays", "/two"))
        wait_inside(segment, 22)
        for number, client in enumerate(leaving):
            getattr(client, ["leave", "reset"][number % 2])()
        wait_inside(segment, 2)
        open_gate(gate)
        assert [holding.answer().body, other.answer().body] == [b'"hold"', b'"stays"']
    service.stop()
    assert runs(service) == ["run hold", "run stays"]


def test_forward_is_told_that_its_client_has_left(serve: Serve, gate: Path) -> None:
    service = start(serve, gate)
    with memory(service) as segment:
        for number, (how, behind) in enumerate(WAYS):
            client = Client(service)
            client.send(post(number, "/alone") + behind)
            service.wait_output(f"^alone {number} False$")
            getattr(client, how)()
            service.wait_output(f"^left alone {number}$")
        wait_until(segment, lambda stats: stats["late"] == len(WAYS))  # what it returned is thrown away
        with Client(service) as client:
            assert client.ask(post("served", "/count")).body == b'"served"'
    service.stop()
    assert runs(service) == ["run served"]


def test_forward_is_told_who_of_a_batch_has_left(serve: Serve, gate: Path) -> None:
    """Those and no others; its mates are answered."""
    service = start(serve, gate)
    with memory(service) as segment, Client(service) as first, Client(service) as third:
        second, fourth = Client(service), Client(service)
        clients = [first, second, third, fourth]
        for number, client in enumerate(clients):
            client.send(post({"name": f"{number}", "leave": 2}, "/four"))
            wait_inside(segment, number + 1)
        service.wait_output("^batch 0 1 2 3$")
        second.leave()
        fourth.reset()
        service.wait_output("^left 1 3$")
        for number, client in ((0, first), (2, third)):
            assert json.loads(client.answer().body) == {"name": f"{number}", "leave": 2}
        wait_until(segment, lambda stats: stats["late"] == 2)


def test_who_leaves_while_a_batch_forms_is_not_in_it(serve: Serve, gate: Path) -> None:
    service = start(serve, gate)
    with memory(service) as segment, contextlib.ExitStack() as stack:

        def join(name: str) -> Client:
            client = stack.enter_context(Client(service))
            client.send(post({"name": name, "leave": 0}, "/four"))
            return client

        gone = [join("gone"), join("also gone")]
        wait_inside(segment, 2)
        stays = [join("a")]
        wait_inside(segment, 3)
        gone[0].leave()
        gone[1].reset()
        wait_inside(segment, 1)
        for number, name in enumerate("bcd"):
            wait_inside(segment, number + 1)
            stays.append(join(name))
        service.wait_output("^batch a b c d$")
        assert {client.answer().status for client in stays} == {200}
        assert segment.stats()["late"] == 0


def test_all_clients_of_a_batch_of_64_leave(serve: Serve, gate: Path) -> None:
    service = start(serve, gate)
    with memory(service) as segment:
        clients = [Client(service) for _ in range(64)]
        for client in clients:
            client.send(post({"name": "x", "leave": 64}, "/many"))
        service.wait_output("^batch( x){64}$")
        for client in clients[::2]:
            client.leave()
        for client in clients[1::2]:
            client.reset()
        service.wait_output("^left( x){64}$")
        wait_until(segment, lambda stats: stats["late"] == 64)
        with contextlib.ExitStack() as stack:
            others = [stack.enter_context(Client(service)) for _ in range(64)]
            for client in others:
                client.send(post({"name": "y", "leave": 0}, "/many"))
            assert {client.answer().status for client in others} == {200}


UPLOADS = {
    "declared": request(bytes(8 * MIB), "/count")[: -3 * MIB],
    "declared, head only": request(bytes(8 * MIB), "/count")[: -8 * MIB],
    "chunked": chunked(bytes(3 * MIB), path="/count", end=b""),
    "chunked, within a chunk": chunked(bytes(3 * MIB), path="/count")[:-MIB],
    "refused": request(bytes(11 * MIB), "/count")[:MIB],
}


def test_who_leaves_in_an_upload_holds_nothing(serve: Serve, gate: Path) -> None:
    service = start(serve, gate)
    with memory(service) as segment:
        for how, (kind, raw) in itertools.product(["leave", "reset"], UPLOADS.items()):
            clients = [Client(service) for _ in range(4)]
            for client in clients:
                client.send(raw)
            if kind != "refused":
                wait_until(segment, lambda stats: stats["charged"] >= 4 * 3 * MIB)
            for client in clients:
                getattr(client, how)()
            wait_until(segment, lambda stats: stats["charged"] == stats["connections"] == 0)
    service.stop()
    assert runs(service) == []


def test_who_leaves_in_an_answer_gives_it_back(serve: Serve, gate: Path) -> None:
    service = start(serve, gate)
    with memory(service) as segment:
        for how, reads in itertools.product(["leave", "reset"], [0, 1000, 5 * MIB]):
            client = Client(service)
            client.send(post(32 * MIB, "/large"))
            wait_until(segment, lambda stats: stats["charged"] >= 32 * MIB)
            while reads > 0:
                reads -= len(client.socket.recv(reads))
            getattr(client, how)()
            wait_until(segment, lambda stats: stats["charged"] == 0)


def test_who_leaves_a_stream_ends_it(serve: Serve, gate: Path) -> None:
    service = serve(STREAMS, str(gate), "--timeout", "60000").wait_ready()
    behind = post({"then": "killed"}, "/inference") * 2  # if it were run, the log would tell
    with memory(service):
        for number, (how, after) in enumerate(itertools.product(["leave", "reset"], [b"", behind]), 1):
            client = Client(service)
            client.send(post({"texts": ["one"], "then": "until cancelled"}, "/inference") + after)
            got = b""
            while b"data: one" not in got:
                got += client.socket.recv(1000)
            getattr(client, how)()
            service.wait_outputs("^cancelled False$", number)
            client = Client(service)
            client.send(post({"then": "flood"}, "/inference") + after)
            service.wait_outputs("^flooding$", number)
            getattr(client, how)()
            service.wait_outputs("^flooded$", number)
    service.stop()
    assert "ended by itself" not in service.output
