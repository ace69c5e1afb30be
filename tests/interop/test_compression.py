"""--compression in a real service: bodies in gzip and zstd, answers by Accept-Encoding."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.codings import DECODERS, ENCODERS, frame
from tests.http_client import request
from tests.interop.coded import LARGE, LARGE_JSON, ask, exchange, running
from tests.programs import ECHO
from tests.service import Serve, Service
from tests.tools import environment, require

both = pytest.mark.parametrize("coding", ["gzip", "zstd"])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("service")) as service:
        service.wait_ready()
        yield service


def test_answers_have_the_coding_that_is_preferred(service: Service) -> None:
    for accept, coding in (
        ("gzip", "gzip"),
        ("zstd", "zstd"),
        ("x-gzip;q=0.5, br", "gzip"),
        ("gzip, zstd", "zstd"),
        ("gzip;q=1, zstd;q=0.9", "gzip"),
        ("*", "zstd"),
    ):
        status, headers, body = ask(service, LARGE_JSON, accept_encoding=accept)
        assert (status, headers["content-encoding"], headers["vary"]) == (200, coding, "accept-encoding")
        assert headers["content-type"] == "application/json"
        assert len(body) < len(LARGE_JSON)
        assert DECODERS[coding](body) == LARGE_JSON
    for accept in ("identity", "br", "gzip;q=0", "", "gzip;q=nonsense", "identity;q=1, gzip;q=0.5"):
        status, headers, body = ask(service, LARGE_JSON, accept_encoding=accept)
        assert (status, headers["vary"], body) == (200, "accept-encoding", LARGE_JSON)
        assert "content-encoding" not in headers
    _, headers, body = ask(service, LARGE_JSON)
    assert "content-encoding" not in headers
    assert headers["vary"] == "accept-encoding"


def test_accept_encoding_on_several_lines(service: Service) -> None:
    lines = "Accept-Encoding: gzip\r\naccept-encoding: zstd;q=0.5\r\nACCEPT-ENCODING:\r\n"
    ((_, headers, _),) = exchange(service, request(LARGE_JSON, "/echo", lines))
    assert headers["content-encoding"] == "gzip"
    ((status, _, _),) = exchange(service, request(b"[]", "/echo", "content-encoding: gzip\r\n" * 2))
    assert status == 415


@both
def test_bodies(service: Service, coding: str) -> None:
    assert ask(service, ENCODERS[coding](LARGE_JSON), content_encoding=coding.upper())[2] == LARGE_JSON
    parts = ENCODERS[coding](LARGE_JSON[:100]) + ENCODERS[coding](LARGE_JSON[100:])
    assert ask(service, parts, content_encoding=coding)[2] == LARGE_JSON
    assert ask(service, LARGE_JSON, content_encoding="identity")[2] == LARGE_JSON
    assert ask(service, ENCODERS[coding](b""), content_encoding=coding)[0] == 400  # as for " ": it is no JSON
    raw = ask(service, ENCODERS[coding](b"abc"), "/raw", content_encoding=coding)[2]
    assert raw.rstrip() == b"bytearray 3"
    assert ask(service, ENCODERS[coding](b"abc"), "/inplace", content_encoding=coding)[2] == b"!bc"


def test_pieces_of_a_chunked_body(service: Service) -> None:
    coded = gzip.compress(LARGE_JSON)
    with service.client() as client:
        answer = client.post(
            "/echo", content=(coded[i : i + 7] for i in range(0, len(coded), 7)), headers={"content-encoding": "gzip"}
        )
    assert answer.json() == LARGE


def test_which_answers_stay_plain(service: Service) -> None:
    noise = random.Random(1).randbytes(5000)
    for path, body in (("/echo", b"[1]"), ("/inplace", b"!" + noise), ("/picture", b"!" + bytes(5000))):
        status, headers, answer = ask(service, body, path, accept_encoding="gzip, zstd")
        assert (status, answer, headers["vary"]) == (200, body, "accept-encoding")
        assert "content-encoding" not in headers
        status, headers, answer = ask(service, body, path, accept_encoding="gzip, identity;q=0")
        assert (status, headers["content-encoding"], gzip.decompress(answer)) == (200, "gzip", body)


def test_a_client_that_refuses_everything_is_answered(service: Service) -> None:
    status, headers, body = ask(service, LARGE_JSON, accept_encoding="*;q=0")
    assert (status, body) == (200, LARGE_JSON)
    assert "content-encoding" not in headers


def test_errors_and_the_services_own_answers_are_plain(service: Service) -> None:
    _, headers, body = ask(service, b"[]", "/refusing", accept_encoding="gzip, identity;q=0")
    assert body == b"bad request: " + b"x" * 5000
    assert not {"content-encoding", "vary"} & headers.keys()
    _, headers, body = ask(service, b"", accept_encoding="gzip")
    assert (body, headers.get("vary")) == (b"no data provided", None)
    with service.client() as client:
        for path, status in (("/metrics", 200), ("/", 200), ("/nowhere", 404), ("/echo", 405)):
            answer = client.get(path, headers={"content-encoding": "br"})
            assert (answer.status_code, answer.headers.get("content-encoding")) == (status, None)


def test_a_clients_old_version_does_not_matter(service: Service) -> None:
    for accept, coding in (("accept-encoding: gzip\r\n", "gzip"), ("", "")):
        head = f"POST /echo HTTP/1.0\r\ncontent-length: {len(LARGE_JSON)}\r\n{accept}\r\n"
        ((_, headers, _),) = exchange(service, head.encode() + LARGE_JSON)
        assert headers.get("content-encoding", "") == coding


def test_stages(service: Service) -> None:
    for path, stages in (("/stages", ["second", ["first", LARGE]]), ("/short", ["second", LARGE])):
        for coding, encode in ENCODERS.items():
            answer = ask(service, encode(LARGE_JSON), path, content_encoding=coding, accept_encoding=coding)
            assert answer[1]["content-encoding"] == coding
            assert json.loads(DECODERS[coding](answer[2])) == stages


def test_clients_of_others(service: Service, tmp_path: Path) -> None:
    curl = require("curl")
    coded = tmp_path / "body"
    coded.write_bytes(gzip.compress(LARGE_JSON))
    command = [curl, "--silent", "--show-error", "--compressed", "--dump-header", str(tmp_path / "head")]
    command += ["--header", "content-encoding: gzip", "--data-binary", f"@{coded}"]
    run = subprocess.run(
        [*command, f"http://{service.address}/echo"], capture_output=True, timeout=30, env=environment(), check=True
    )
    assert run.stdout == LARGE_JSON
    assert b"\ncontent-encoding: " in (tmp_path / "head").read_bytes()
    with service.client() as client:
        answer = client.post("/echo", content=frame(LARGE_JSON), headers={"content-encoding": "zstd"})
        assert answer.headers["content-encoding"] in ("gzip", "zstd")
        assert answer.json() == LARGE


def test_without_the_option_headers_are_ignored(serve: Serve) -> None:
    service = serve(ECHO).wait_ready()
    status, headers, body = ask(service, LARGE_JSON, "/inference", content_encoding="br", accept_encoding="gzip")
    assert (status, body) == (200, LARGE_JSON)
    assert not {"content-encoding", "vary"} & headers.keys()
    assert ask(service, gzip.compress(b"[]"), "/inference", content_encoding="gzip")[0] == 400


def test_the_start_says_which_codings_are_on(service: Service) -> None:
    assert "compression is on: gzip, zstd" in service.messages


def test_a_python_without_zstd(serve: Serve) -> None:
    absent = "import sys; sys.modules['backports.zstd'] = sys.modules['compression.zstd'] = None\n"
    service = serve(ECHO.replace("\n", f"\n    {absent}", 1), "--compression").wait_ready()
    (said,) = (message for message in service.messages if message.startswith("compression is on"))
    assert said == "compression is on: gzip (zstd needs mosec_cy[zstd])"
    status, headers, _ = ask(service, frame(LARGE_JSON), "/inference", content_encoding="zstd")
    assert (status, headers["accept-encoding"]) == (415, "gzip")
    _, headers, _ = ask(service, gzip.compress(LARGE_JSON), "/inference", content_encoding="gzip", accept_encoding="*")
    assert headers["content-encoding"] == "gzip"
