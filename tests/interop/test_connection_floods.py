"""More connections than a real service can have, and storms of resets: who is inside is served, who waits gets in."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import resource
import signal
from collections.abc import Iterator

from tests.accounting import assert_at_most, memory, status, wait_until
from tests.crowd import connect, give_descriptors, hurried_resets, reset, take_descriptors
from tests.http_client import Client, chunked, get, request
from tests.load import Exchange, drive, exchange
from tests.service import Serve, Service

LIMITED = """
    import os, resource, sys
    from mosec_cy import Server, Worker

    class Tells(Worker):
        def forward(self, data):
            return [data, os.getpid()]

    if __name__ == "__main__":
        if len(sys.argv) > 1 and sys.argv[1].isdigit():
            resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2)
        server = Server()
        server.append_worker(Tells)
        server.run()
"""


def core_of(service: Service) -> int:
    return service.wait_process("mosec_cy: core")


def echoed(client: Client) -> tuple[object, int]:
    """What it had sent, and the worker's pid."""
    answer = client.answer()
    assert answer.status == 200
    value, pid = json.loads(answer.body)
    return value, pid


def test_a_flood_past_the_limit_of_descriptors(serve: Serve) -> None:
    service = serve(LIMITED, "96").wait_ready()
    core = core_of(service)
    held = len(service.descriptors(service.process.pid))
    with memory(service) as segment, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(service)) for _ in range(250)]
        for number, client in enumerate(clients):
            client.send(request(b"%d" % number))
        assert_at_most(0, core)  # accepting is paused
        inside = segment.stats()["connections"]
        assert 40 <= inside < 96
        before = [echoed(client) for client in clients[:inside]]
        assert [value for value, _ in before] == list(range(inside))
        assert all(not client.readable() for client in clients[inside:])
        # Who is inside can do everything, also what takes descriptors of the service.
        page = clients[0].ask(get("/metrics"))
        assert f"mosec_service_open_connections {inside}.0" in page.body.decode()
        os.kill(before[0][1], signal.SIGKILL)
        service.wait_outputs(r"<Tells_1\|1> ready", 2)
        clients[1].send(request(b'"again"'))
        value, pid = echoed(clients[1])
        assert (value, pid != before[0][1]) == ("again", True)
        assert_at_most(0, core)
        # One goes, the next one gets in.
        for number in range(inside, len(clients)):
            clients[number - inside].socket.close()
            assert echoed(clients[number]) == (number, pid)
            assert segment.stats()["connections"] <= inside
        assert len(service.descriptors(service.process.pid)) == held


def test_the_least_descriptors_that_do(serve: Serve) -> None:
    """A limit that leaves little beyond what the service itself needs."""
    service = serve(LIMITED, "48").wait_ready()
    with memory(service) as segment, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(service)) for _ in range(60)]
        for number, client in enumerate(clients):
            client.send(request(b"%d" % number))
        for number, client in enumerate(clients):
            with client:
                assert echoed(client)[0] == number
        assert segment.stats()["connections"] < 48


def test_core_loses_its_descriptors_meanwhile(serve: Serve) -> None:
    """Somebody lowers the limit, and raises it: neither needs a client to go."""
    service = serve(LIMITED).wait_ready()
    core = core_of(service)
    with memory(service), Client(service) as inside:
        assert inside.ask(get()).status == 200
        take_descriptors(core)
        late = Client(service)
        late.send(request(b'"late"'))
        for number in range(100):
            inside.send(request(b"%d" % number))
            assert echoed(inside)[0] == number
        assert not late.readable()
        assert_at_most(20, core)  # it looks again from time to time, and does not spin
        give_descriptors(core)
        assert echoed(late)[0] == "late"
        late.socket.close()


def test_workers_die_while_core_has_no_descriptors(serve: Serve) -> None:
    """It cannot be given their pidfds: still each end is noticed, told to its client, and made good."""
    service = serve(LIMITED, "--timeout", "60000").wait_ready()
    core = core_of(service)
    with memory(service), Client(service) as inside:
        inside.send(request(b"0"))
        _, pid = echoed(inside)
        _, hard = resource.prlimit(core, resource.RLIMIT_NOFILE)
        resource.prlimit(core, resource.RLIMIT_NOFILE, (3, hard))  # none that it closes is free again
        late = Client(service)
        late.send(request(b'"late"'))
        for number in range(1, 4):
            os.kill(pid, signal.SIGKILL)
            inside.send(request(b"%d" % number))  # waits for the next one, if the end has been seen
            answer = inside.answer()
            if answer.status == 500:  # dispatched before that
                inside.send(request(b"%d" % number))
                answer = inside.answer()
            value, successor = json.loads(answer.body)
            assert (value, successor != pid) == (number, True)
            pid = successor
        assert not late.readable()
        give_descriptors(core)
        assert echoed(late)[0] == "late"
        late.socket.close()
        os.kill(pid, signal.SIGKILL)
        service.wait_outputs(r"<Tells_1\|1> ready", 5)
        inside.send(request(b"9"))
        assert echoed(inside)[0] == 9


PIECES = [
    b"",
    b"POST /inf",
    request(b"[1]")[:-1],
    request(b"[1]"),
    request(b"[1]") * 40,
    request(b"x" * 300_000)[:-100_000],
    chunked(b"x" * 100_000, end=b""),
    get("/metrics"),
    b"\x16\x03\x01",
]


def storm(port: int, count: int) -> None:
    for number in range(count):
        client = connect(port)
        client.sendall(PIECES[number % len(PIECES)])
        reset(client)


def traffic(count: int) -> Iterator[Exchange]:
    for number in range(count):
        text = "x" * (number % 700)

        def check(code: int, body: bytes, expected: list[object] = [number, text]) -> bool:  # noqa: B006
            return code == 200 and json.loads(body)[0] == expected

        yield exchange("/inference", json.dumps([number, text]).encode(), check)


def test_a_storm_of_resets_among_others(serve: Serve) -> None:
    """Before and after they are accepted, and in a request; no answer of the others is lost or swapped."""
    service = serve(LIMITED, "--timeout", "30000").wait_ready()
    core = core_of(service)
    with memory(service) as segment:
        storm(service.port, 200)  # what is kept for use again has grown
        wait_until(segment, lambda stats: stats["connections"] == stats["remaining"] == 0)
        held, private = service.descriptors(core), status(core, "RssAnon")
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            others = pool.submit(drive, service.port, traffic(4000), 16)
            storms = [pool.submit(storm, service.port, 2000), pool.submit(hurried_resets, service.port, 2000)]
            for future in storms:
                future.result()
            os.kill(core, signal.SIGSTOP)  # none of these is accepted before it is reset
            hurried_resets(service.port, 1000)
            os.kill(core, signal.SIGCONT)
            assert others.result() == {200: 4000}
        wait_until(segment, lambda stats: stats["connections"] == stats["remaining"] == 0)
        assert service.descriptors(core) == held
        assert status(core, "RssAnon") - private < 2048
        assert_at_most(2, core)
