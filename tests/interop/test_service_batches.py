"""Batches as user code sees them, in a real service."""

from __future__ import annotations

import concurrent.futures
import json
import os
from pathlib import Path
from typing import Any

from tests.http_client import clients
from tests.service import Serve, Service

BATCHES = """
    import functools, os
    from mosec_cy import Server, ValidationError, Worker

    class Batching(Worker):
        def forward(self, data):
            assert isinstance(data, list)
            return [[item, len(data)] for item in data]

    class Decoding(Batching):
        def deserialize(self, data):
            if data.startswith(b"bad"):
                raise ValidationError(bytes(data).decode())
            return bytes(data).decode()

    class Encoding(Worker):
        def forward(self, data):
            return [object() if item == "bad" else item for item in data]

    class Exceptions(Worker):
        def forward(self, data):
            return [ValidationError(item) if item.startswith("bad") else item for item in data]

    class Failing(Worker):
        def forward(self, data):
            if "bad" in data:
                raise ValidationError(f"{len(data)} of us")
            return data

    class Wrong(Worker):
        def forward(self, data):
            if "bad" in data:
                wrong = {"short": data[1:], "long": data * 2, "none": None, "number": 1, "mapping": {"a": 1, "b": 2},
                         "set": {1, 2}, "string": "ab", "bytes": b"ab", "view": memoryview(b"ab")}
                return wrong[(set(data) - {"bad"}).pop()]
            return data

    class Lazy(Worker):
        def forward(self, data):
            return (item for item in data)

    class Single(Worker):
        def forward(self, data):
            return ValidationError("in place") if data == "bad" else data

    class First(Worker):
        def forward(self, data):
            return {"id": data, "via": [["First", 1]]}

    class Middle(Worker):
        def forward(self, data):
            for item in data:
                item["via"].append(["Middle", len(data)])
            return data

    class Last(Worker):
        def forward(self, data):
            for item in data:
                item["via"].append(["Last", len(data)])
            return data

    if __name__ == "__main__":
        server = Server()
        # So many interpreters would take a second to start.
        server.append_worker = functools.partial(server.append_worker, start_method="fork")
        for worker in (Batching, Decoding, Encoding, Exceptions, Failing, Lazy):
            server.append_worker(worker, max_batch_size=4, max_wait_time=300, route=f"/{worker.__name__.lower()}")
        server.append_worker(Wrong, max_batch_size=2, max_wait_time=300, route="/wrong")
        server.append_worker(Single, route="/single")
        server.append_worker(First, route="/pipeline", num=2)
        server.append_worker(Middle, max_batch_size=8, max_wait_time=5, route="/pipeline")
        server.append_worker(Last, max_batch_size=3, max_wait_time=5, route="/pipeline")
        server.run()
"""


def together(service: Service, route: str, bodies: list[str], raw: bool = False) -> list[tuple[int, Any]]:
    """Status and answer (JSON, or text of an error) of requests that are sent at once."""
    with clients(service, len(bodies)) as many:
        for client, body in zip(many, bodies, strict=True):
            client.send_post(body.encode() if raw else json.dumps(body).encode(), route)
        outcomes = [client.outcome() for client in many]
    return [(status, json.loads(answer) if status == 200 else answer.decode()) for status, answer in outcomes]


def test_batches(serve: Serve) -> None:
    service = serve(BATCHES).wait_ready()
    bad = (422, "request validation error: bad")
    # A batch is a list, also of one; it holds what came in time.
    assert together(service, "/batching", ["a"]) == [(200, ["a", 1])]
    assert together(service, "/batching", list("abcd")) == [(200, [letter, 4]) for letter in "abcd"]
    # One item that cannot be decoded, or encoded, or has an exception in its place, fails alone.
    assert together(service, "/decoding", ["a", "bad", "b", "c"], raw=True) == [
        (200, ["a", 3]),
        bad,
        (200, ["b", 3]),
        (200, ["c", 3]),
    ]
    assert together(service, "/decoding", ["bad"] * 4, raw=True) == [bad] * 4
    answers = together(service, "/encoding", ["a", "bad", "b", "c"])
    assert [answers[0], answers[2], answers[3]] == [(200, "a"), (200, "b"), (200, "c")]
    assert answers[1][0] == 500
    assert answers[1][1].startswith("encoding error: ")
    assert together(service, "/exceptions", ["a", "bad", "b", "c"]) == [(200, "a"), bad, (200, "b"), (200, "c")]
    assert together(service, "/single", ["a", "bad"]) == [(200, "a"), (422, "request validation error: in place")]
    # What `forward` raises, or a wrong number of results, is everybody's; any iterable of the right length will do.
    assert together(service, "/failing", ["a", "bad", "b", "c"]) == [(422, "request validation error: 4 of us")] * 4
    for how, what in {"short": "1 results", "long": "4 results", "none": "NoneType", "number": "int"}.items():
        assert together(service, "/wrong", ["bad", how]) == [(500, "inference internal error")] * 2
        service.wait_output(f"<Wrong_7.1> forward returned {what} for a batch")
    for how in ("mapping", "set", "string", "bytes", "view"):  # of the right length
        for status, text in together(service, "/wrong", ["bad", how]):
            assert (status, "it must return a list of results" in text) == (500, True)
    assert together(service, "/wrong", ["a", "b"]) == [(200, "a"), (200, "b")]
    assert together(service, "/lazy", list("abcd")) == [(200, letter) for letter in "abcd"]


def test_stages_with_batches_of_their_own(serve: Serve) -> None:
    service = serve(BATCHES).wait_ready()
    sizes: dict[str, set[int]] = {"First": set(), "Middle": set(), "Last": set()}
    for number, (status, answer) in enumerate(together(service, "/pipeline", [str(n) for n in range(48)])):
        assert (status, answer["id"]) == (200, str(number))
        for stage, size in answer["via"]:
            sizes[stage].add(size)
    assert sizes["First"] == {1}
    assert max(sizes["Middle"]) <= 8
    assert max(sizes["Last"]) <= 3


def test_a_burst_is_not_split_between_idle_replicas(serve: Serve) -> None:
    service = serve("""
        import os
        from mosec_cy import Server, Worker

        class Sizes(Worker):
            def forward(self, data):
                return [[len(data), os.getpid()]] * len(data)

        if __name__ == "__main__":
            server = Server()
            server.append_worker(Sizes, num=4, max_batch_size=8, max_wait_time=2000)
            server.run()
    """).wait_ready()
    for number in range(1, 5):
        service.wait_output(rf"<Sizes_1.{number}> ready")
    for _ in range(8):
        answers = together(service, "/inference", ["x"] * 8)
        assert len({tuple(answer) for _, answer in answers}) == 1  # the same process
        assert answers[0] == (200, [8, answers[0][1][1]])


def test_a_forked_worker_dies_in_a_batch(serve: Serve, tmp_path: Path) -> None:
    """Its clients are told at once; what waits is answered by its successor."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    service = serve(f"""
        import os
        from mosec_cy import Server, Worker

        class Mortal(Worker):
            def forward(self, data):
                if "die" in data:
                    open({str(gate)!r}).read()
                    os.abort()
                return [os.getpid()] * len(data)

        if __name__ == "__main__":
            server = Server()
            server.append_worker(Mortal, max_batch_size=2, max_wait_time=300, start_method="fork")
            server.run()
    """).wait_ready()
    with concurrent.futures.ThreadPoolExecutor(1) as dying, service.client() as client:
        [(_, before)] = together(service, "/inference", ["x"])
        doomed = dying.submit(together, service, "/inference", ["die", "die"])
        with gate.open("w"):  # open: it is in `forward`
            pass
        assert doomed.result() == [(500, "inference internal error: the worker process died")] * 2
        after = client.post("/inference", json="x")
        assert after.status_code == 200
        assert after.json() != before
    service.wait_output("ended by itself with SIGABRT")
