"""HTTP/1.1 by RFC 9110 and 9112, over real sockets: requests one by one, and many at once, however the bytes fall."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from mosec_cy._engine.worker import Channel
from tests.engine import Engine
from tests.http_client import Client, chunked, get, receive_all, request
from tests.interop.http1 import barrier, core, echo, serving


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with serving() as engine:
        yield engine


@pytest.fixture
def client(engine: Engine) -> Iterator[Client]:
    with Client(engine) as client:
        yield client


def test_an_answer_has_what_rfc_9110_asks_for(client: Client) -> None:
    before = int(time.time())
    answer = client.post(b"body")
    after = int(time.time())
    assert (answer.status, answer.body) == (200, b"body")
    assert answer.headers.pop("server") == "mosec_cy/test"
    assert before <= parsedate_to_datetime(answer.headers.pop("date")).timestamp() <= after
    assert answer.headers == {"content-type": "application/octet-stream", "content-length": "4"}


def test_a_connection_serves_one_request_after_the_other(client: Client) -> None:
    for i in range(200):
        body = b"%d" % i * (i % 7 + 1)
        assert client.post(body).body == body
    assert client.ask(get()).body == b"MOSEC service"
    assert not client.ask(get()).closes


@pytest.mark.parametrize("headers", ["connection: close\r\n", "Connection: keep-alive\r\nCONNECTION: x, Close\r\n"])
def test_close_wins(client: Client, headers: str) -> None:
    answer = client.post(b"x", headers=headers)
    assert (answer.status, answer.body, answer.closes) == (200, b"x", True)
    assert client.ended()


OLD = b"POST /inference HTTP/1.0\r\ncontent-length: 1\r\n"


def test_http_1_0_closes(client: Client) -> None:
    answer = client.ask(OLD + b"\r\nx")
    assert (answer.status, answer.body, answer.closes) == (200, b"x", True)
    assert client.ended()


def test_http_1_0_stays_if_it_asks_for_it(client: Client) -> None:
    for _ in range(3):
        answer = client.ask(OLD + b"Connection: Keep-Alive\r\n\r\nx")
        assert (answer.status, answer.body, answer.headers["connection"]) == (200, b"x", "keep-alive")


def test_http_1_0_gets_no_interim_response(engine: Engine, client: Client) -> None:
    client.send(OLD + b"expect: 100-continue\r\n\r\n")
    barrier(engine)
    client.send(b"x")
    assert client.answer(interim=True).body == b"x"
    assert client.ended()


def test_head_answers_without_a_body(client: Client) -> None:
    answer = client.ask(get(method="HEAD"), to_head=True)
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, "13", b"")
    missing = client.ask(get("/nowhere", method="HEAD"), to_head=True)
    assert (missing.status, missing.headers["content-length"]) == (404, "9")
    refused = client.ask(get("/inference", method="HEAD"), to_head=True)
    assert (refused.status, refused.headers["allow"]) == (405, "POST, OPTIONS")
    assert client.ask(get()).body == b"MOSEC service"


def test_a_refusal_after_head_has_its_body_again(client: Client) -> None:
    client.ask(get(method="HEAD"), to_head=True)
    answer = client.ask(b"\x16\x03\x01")
    assert (answer.status, answer.body) == (400, b"bad request: malformed HTTP")


@pytest.mark.parametrize(
    ("path", "allow"),
    [("/inference", "POST, OPTIONS"), ("/", "GET, HEAD, OPTIONS"), ("*", "GET, HEAD, POST, OPTIONS")],
)
def test_options(client: Client, path: str, allow: str) -> None:
    answer = client.ask(get(path, method="OPTIONS"))
    assert (answer.status, answer.headers["allow"], answer.body) == (204, allow, b"")
    assert not {"content-length", "transfer-encoding", "content-type"} & set(answer.headers)
    assert client.post(b"x").body == b"x"


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/inference", 405, "POST, OPTIONS"),
        ("PUT", "/inference", 405, "POST, OPTIONS"),
        ("post", "/inference", 405, "POST, OPTIONS"),
        ("POST", "/", 405, "GET, HEAD, OPTIONS"),
        ("DELETE", "/metrics", 405, "GET, HEAD, OPTIONS"),
        ("BREW", "/", 405, "GET, HEAD, OPTIONS"),
        ("POST", "/inferenc", 404, None),
        ("POST", "/inference/", 404, None),
        ("POST", "/inference/x", 404, None),
        ("POST", "//inference", 404, None),
        ("POST", "/Inference", 404, None),
        ("GET", "/metricsx", 404, None),
        ("TRACE", "/nowhere", 404, None),
    ],
)
def test_what_is_not_there(client: Client, method: str, path: str, status: int, allow: str | None) -> None:
    answer = client.ask(get(path, method=method))
    assert (answer.status, answer.headers.get("allow"), answer.closes) == (status, allow, False)
    # The connection lives on, also when such a request brought a body.
    assert client.ask(request(b"y" * 60_000, path, method=method)).status == status
    assert client.post(b"x").body == b"x"


@pytest.mark.parametrize(
    "path",
    [
        "/%69nference",
        "/%69%6E%66%65%72%65%6e%63%65",
        "/inference?x=%",
        "/inference?",
        "http://test/inference",
        "HTTP://user.test:1/%69nference?x",
    ],
)
def test_targets_that_mean_the_route(client: Client, path: str) -> None:
    assert client.post(b"x", path=path).body == b"x"


@pytest.mark.parametrize(
    "path", ["/inference%2F", "/inference%2fx", "/%2Finference", "/inference%3Fx", "/%2569nference"]
)
def test_escapes_that_are_data(client: Client, path: str) -> None:
    assert client.post(b"x", path=path).status == 404
    assert client.post(b"x").body == b"x"


@pytest.mark.parametrize("path", ["/%", "/%6", "/%6g", "/%zz", "/inference%00", "/%-1nference", "/inference%"])
def test_bad_escapes(client: Client, path: str) -> None:
    answer = client.post(b"x", path=path)
    assert (answer.status, answer.closes) == (400, True)
    assert client.ended()


def test_a_target_without_its_slash_is_refused(client: Client) -> None:
    assert client.post(b"x", path="%2Finference").status == 400


def test_no_data(client: Client) -> None:
    for raw in (request(b""), get("/inference", method="POST"), chunked()):
        answer = client.ask(raw)
        assert (answer.status, answer.body) == (200, b"no data provided")


@pytest.mark.parametrize(
    ("status", "raw"),
    [
        (200, get("/?" + "x" * (8192 - len("GET /? HTTP/1.1\r\n")))),
        (414, get("/?" + "x" * (8193 - len("GET /? HTTP/1.1\r\n")))),
        (414, b"GET /" + b"x" * 8192),
        (414, b"X" * 8200),
        (200, get(headers="x: y\r\n" * 99)),
        (431, get(headers="x: y\r\n" * 100)),
        (200, get(headers="x: " + "y" * (32768 - len(get()) - 5) + "\r\n")),
        (431, get(headers="x: " + "y" * (32768 - len(get()) - 4) + "\r\n")),
        (431, get(headers="x: " + "y" * 100_000 + "\r\n")),
        (505, b"GET / HTTP/1.2\r\n\r\n"),
        (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\n\r\n"),
        (400, b"GET /\r\n\r\n"),
        (501, get(headers="transfer-encoding: gzip, chunked\r\n", method="POST")),
        (413, request(b"", headers="").replace(b"length: 0", b"length: 10485761")),
        (413, request(b"", headers="").replace(b"length: 0", b"length: 9999999999999999999")),
    ],
    ids=lambda value: str(value)[:40],
)
def test_limits(engine: Engine, status: int, raw: bytes) -> None:
    with Client(engine) as client:
        answer = client.ask(raw)
        assert (answer.status, answer.closes) == (status, status != 200)
        if status != 200:
            assert client.ended()


@pytest.mark.parametrize("expectation", ["200-ok", "100-continue, x"])
def test_an_unknown_expectation_fails(client: Client, expectation: str) -> None:
    answer = client.post(b"x", headers=f"expect: {expectation}\r\n")
    assert (answer.status, answer.closes) == (417, True)
    assert client.ended()


def test_empty_lines_between_requests(client: Client) -> None:
    client.send(b"\r\n\r\n" + request(b"a") + b"\r\n" + request(b"b"))
    assert [client.answer().body, client.answer().body] == [b"a", b"b"]


def test_every_request_counts_by_route_and_status() -> None:
    with serving() as engine:
        with Client(engine) as client:
            for raw in (request(b"x"), request(b"x"), get("/inference"), get(), get("/nowhere"), request(b"")):
                client.ask(raw)
            client.ask(request(b"x", path="/%zz"))
        stats = engine.segment.stats()
        inference, _, others = stats["routes"]
        assert inference[0] == 2
        assert sum(inference) == 2
        assert (others[0], others[2], others[3], others[4]) == (2, 1, 1, 1)  # 200, 400, 404, 405


def test_a_whole_exchange_in_one_go(engine: Engine) -> None:
    with engine.connect() as client:
        client.sendall(request(b"a") + request(b"b", headers="connection: close\r\n") + request(b"never"))
        raw = receive_all(client)
    assert raw.count(b"HTTP/1.1 200 OK") == 2
    assert raw.endswith(b"\r\n\r\nb")
    assert b"never" not in raw


# ---- pipelined and split -------------------------------------------------------------------------


# Request, answer's status, answer's body (None: to HEAD).
MIXED: list[tuple[bytes, int, bytes | None]] = [
    (request(b"first"), 200, b"first"),
    (get(), 200, b"MOSEC service"),
    (chunked(b"in", b" pieces", headers="x: y\r\n"), 200, b"in pieces"),
    (get(method="HEAD"), 200, None),
    (b"\r\n" + request(b"refused", path="/nowhere"), 404, b"not found"),
    (get("/inference"), 405, b"method not allowed"),
    (chunked(b"GET / HTTP/1.1\r\n\r\n", end=b"0;last\r\nTrailer: x\r\n\r\n"), 200, b"GET / HTTP/1.1\r\n\r\n"),
    (get("*", method="OPTIONS"), 204, b""),
    (request(b""), 200, b"no data provided"),
    (request(b"last", path="/%69nference?q"), 200, b"last"),
]
STREAM = b"".join(raw for raw, _, _ in MIXED)


def check(client: Client) -> None:
    for raw, status, body in MIXED:
        answer = client.answer(to_head=body is None)
        assert (answer.status, answer.body) == (status, body or b""), raw


def test_mixed_requests_in_one_segment(engine: Engine) -> None:
    with Client(engine) as client:
        for _ in range(3):
            client.send(STREAM)
            check(client)


def test_split_at_every_byte(engine: Engine) -> None:
    clients = [Client(engine) for _ in range(len(STREAM) - 1)]
    for at, client in enumerate(clients, 1):
        client.send(STREAM[:at])
    barrier(engine)  # core has read each of the first parts
    for at, client in enumerate(clients, 1):
        client.send(STREAM[at:])
    for client in clients:
        with client:
            check(client)


def test_byte_by_byte(engine: Engine) -> None:
    with Client(engine) as client, Client(engine) as other:
        for at in range(len(STREAM)):
            client.send(STREAM[at : at + 1])
            assert other.ask(get()).status == 200  # core has read that byte
        check(client)


def test_random_pieces(engine: Engine) -> None:
    generator = random.Random(9112)
    for _ in range(40):
        cuts = sorted(generator.sample(range(1, len(STREAM)), 6))
        with Client(engine) as client:
            for start, end in zip([0, *cuts], [*cuts, len(STREAM)], strict=True):
                client.send(STREAM[start:end])
                if generator.random() < 0.5:
                    barrier(engine)
            check(client)


def test_a_bad_request_ends_the_pipeline(engine: Engine) -> None:
    with Client(engine) as client:
        client.send(request(b"a") + get() + b"GET / HTTP/1.1\r\nhost: a\r\nx : y\r\n\r\n" + request(b"never"))
        assert client.answer().body == b"a"
        assert client.answer().body == b"MOSEC service"
        refusal = client.answer()
        assert (refusal.status, refusal.closes) == (400, True)
        assert client.ended()


@pytest.mark.parametrize("n", [1000, 5000])
def test_a_long_pipeline_of_small_requests(engine: Engine, n: int) -> None:
    # More than core reads at once, and more than it keeps for a connection.
    with Client(engine) as client:
        sender = threading.Thread(target=client.send, args=(b"".join(request(b"%d" % i) for i in range(n)),))
        sender.start()
        assert [client.answer().body for _ in range(n)] == [b"%d" % i for i in range(n)]
        sender.join()


def test_a_long_pipeline_of_large_requests(engine: Engine) -> None:
    bodies = [bytes([i]) * size for i, size in enumerate([1, 70_000, 65_536, 300_000, 2, 262_144, 1_000_000, 3])]
    with Client(engine) as client:
        sender = threading.Thread(target=client.send, args=(b"".join(map(request, bodies)),))
        sender.start()
        assert [client.answer().body for _ in bodies] == bodies
        sender.join()


def test_the_second_waits_for_the_first() -> None:
    # Two workers are free for it: still the second is not begun before the first is answered.
    seen: list[bytes] = []
    begun, gate = threading.Event(), threading.Event()

    def answer(channel: Channel, item: Any) -> None:
        seen.append(bytes(item))
        if bytes(item) == b"1":
            begun.set()
            assert gate.wait(20)
        echo(channel, item)

    with core(slots=2) as engine, engine.worker(answer, 1), engine.worker(answer, 2), Client(engine) as client:
        client.send(request(b"1") + request(b"2"))
        assert begun.wait(20)
        with Client(engine) as other:
            assert other.post(b"x").body == b"x"
        assert seen == [b"1", b"x"]
        gate.set()
        assert [client.answer().body, client.answer().body] == [b"1", b"2"]


def test_answers_of_core_do_not_overtake_the_workers(engine: Engine) -> None:
    with Client(engine) as client:
        client.send(request(b"slow") + get() * 50 + request(b"slow too") + get("/nowhere"))
        assert client.answer().body == b"slow"
        assert {client.answer().body for _ in range(50)} == {b"MOSEC service"}
        assert client.answer().body == b"slow too"
        assert client.answer().status == 404


def test_more_heads_than_one_turn_takes(engine: Engine) -> None:
    """Tiny requests by the thousand, bodies among them, are answered in order over many turns."""
    with Client(engine) as client:
        client.send(b"".join(get() * 100 + request(b"%d" % i) for i in range(20)))
        for i in range(20):
            assert {client.answer().body for _ in range(100)} == {b"MOSEC service"}
            assert client.answer().body == b"%d" % i
