"""--compression with many requests at once: each has its own codings, and none waits for another's."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.codings import DECODERS, ENCODERS, MIB, frame
from tests.http_client import Client, clients, request
from tests.interop.coded import LARGE, LARGE_JSON, LIMIT, ask, exchange, running
from tests.programs import echo
from tests.service import Serve, Service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("service")) as service:
        service.wait_ready()
        yield service


def test_pipelined_requests_with_a_coding_each(service: Service) -> None:
    requests = []
    for number in range(30):
        body = json.dumps([number, LARGE], separators=(",", ":")).encode()
        has = ["gzip", "zstd", ""][number % 3]
        wants = ["zstd", "", "gzip", "identity"][number % 4]
        lines = f"content-encoding: {has}\r\n" * bool(has) + f"accept-encoding: {wants}\r\n" * bool(wants)
        requests.append(request(ENCODERS[has](body) if has else body, "/echo", lines))
    for number, (status, headers, body) in enumerate(exchange(service, *requests)):
        coding = ["zstd", "", "gzip", ""][number % 4]
        assert (status, headers.get("content-encoding", "")) == (200, coding)
        assert json.loads(DECODERS[coding](body) if coding else body) == [number, LARGE]


def test_batches_of_items_with_a_coding_each(service: Service) -> None:
    bodies: list[tuple[bytes, dict[str, str]]] = [
        (gzip.compress(LARGE_JSON), {"content_encoding": "gzip", "accept_encoding": "zstd"}),
        (LARGE_JSON, {"accept_encoding": "gzip"}),
        (frame(bytes(2 * LIMIT)), {"content_encoding": "zstd", "accept_encoding": "gzip"}),
        (frame(LARGE_JSON)[:-1], {"content_encoding": "zstd"}),
    ]
    heads = [
        "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()) for _, headers in bodies
    ]
    with clients(service, len(bodies)) as many:
        for client, (body, _), head in zip(many, bodies, heads):
            client.send_post(body, "/batches", head)
        answers = [client.answer() for client in many]
    assert [status for status, _, _ in answers] == [200, 200, 413, 400]
    for (_, headers, body), coding in zip(answers, ["zstd", "gzip"]):
        assert headers["content-encoding"] == coding
        assert json.loads(DECODERS[coding](body)) == {"size": 2, "data": LARGE}
    assert not any("content-encoding" in headers for _, headers, _ in answers[2:])


HELD = """
    import os, sys, zlib
    from mosec_cy import get_logger

    def held(real, what):
        def hold(*arguments):
            get_logger().info("%s", what)
            os.close(os.open(sys.argv[1], os.O_WRONLY))  # a FIFO: until the test reads it
            return real(*arguments)
        return hold

    zlib.decompressobj = held(zlib.decompressobj, "decodes")
    zlib.compressobj = held(zlib.compressobj, "encodes")
""" + echo(worker="num=2")


def test_others_are_served_while_a_large_body_is_decoded_and_encoded(serve: Serve, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    service = serve(HELD, str(gate), "--compression", "--timeout", "30000").wait_ready()
    for replica in (1, 2):
        service.wait_output(f"<Echo_1.{replica}> ready")
    text = json.dumps("x" * (10 * MIB - 2)).encode()
    with Client(service) as client:
        lines = "content-encoding: gzip\r\naccept-encoding: gzip\r\n"
        client.send_post(gzip.compress(text, 1), "/inference", lines)
        for what in ("decodes", "encodes"):
            service.wait_output(f'"{what}"')
            assert [ask(service, b"[1]", "/inference")[2] for _ in range(10)] == [b"[1]"] * 10
            assert not client.readable()
            gate.read_text()
        status, headers, body = client.answer()
    assert (status, headers["content-encoding"]) == (200, "gzip")
    assert gzip.decompress(body) == text


def test_two_workers_and_many_clients(serve: Serve) -> None:
    service = serve(echo(worker="num=2"), env={"MOSEC_COMPRESSION": "1"}).wait_ready()

    def ask_often(seed: int) -> None:
        chance = random.Random(seed)
        for number in range(40):
            has, wants = chance.choice(["gzip", "zstd", ""]), chance.choice(["gzip", "zstd", "identity"])
            value = [seed, number, list(range(chance.choice([1, 1000, 20_000])))]
            body = json.dumps(value).encode()
            lines = f"content-encoding: {has}\r\n" * bool(has) + f"accept-encoding: {wants}\r\n"
            ((status, headers, answer),) = exchange(
                service, request(ENCODERS[has](body) if has else body, "/inference", lines)
            )
            coding = headers.get("content-encoding", "")
            assert status == 200
            assert coding == (wants if wants != "identity" and len(value[2]) > 1 else "")
            assert json.loads(DECODERS[coding](answer) if coding else answer) == value

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask_often, range(8)))
