"""--compression: other codings, corrupt bodies and bombs."""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.codings import ENCODERS, bombs
from tests.http_client import Client, request
from tests.interop.coded import LARGE_JSON, LIMIT, ask, exchange, running
from tests.service import Service

both = pytest.mark.parametrize("coding", ["gzip", "zstd"])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("service")) as service:
        service.wait_ready()
        yield service


@pytest.mark.parametrize("coding", ["br", "deflate", "gzip, gzip", "gzip, br", "gzip;q=1", "compress", "\x80"])
def test_other_codings(service: Service, coding: str) -> None:
    refused = request(LARGE_JSON, "/echo", f"content-encoding: {coding}\r\n")
    answers = exchange(service, refused, request(b"[2]", "/echo"))
    assert answers[0][0] == 415
    assert answers[0][1]["accept-encoding"] == "gzip, zstd"  # RFC 9110 section 15.5.16
    assert answers[0][2] == b"content-encoding is not supported: send one of gzip, zstd, or none"
    assert answers[1][2] == b"[2]"


def test_a_large_body_in_another_coding_is_refused_at_its_head(service: Service) -> None:
    with Client(service) as client:
        client.send(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\ncontent-encoding: br\r\n\r\n")
        status, headers, _ = client.answer()
    assert (status, headers["connection"]) == (415, "close")


@pytest.mark.parametrize(
    ("corrupt", "complaint"),
    [
        (lambda coded: b"not coded at all", "the body is not valid"),
        (lambda coded: coded[:-1], "the body ends within its"),
        (lambda coded: coded + b"more of it", "the body is not valid"),
    ],
)
@both
def test_corrupt_bodies(service: Service, coding: str, corrupt: Any, complaint: str) -> None:
    status, _, body = ask(service, corrupt(ENCODERS[coding](LARGE_JSON)), content_encoding=coding)
    assert status == 400
    assert body.decode().startswith(f"decoding error: {complaint} {coding}")


def peak_memory(pid: int) -> int:
    """Bytes: the most that a process has had in its memory."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def test_bombs(service: Service) -> None:
    (worker,) = service.pids("mosec_cy: Echo_1")
    ask(service, b"[" + b" " * (LIMIT - 2) + b"]")
    before = peak_memory(worker)
    for coding, bomb in bombs().items():
        assert len(bomb) <= LIMIT
        status, headers, body = ask(service, bomb, content_encoding=coding)
        assert (status, body) == (413, b"request body is too large")
        assert "connection" not in headers
    assert peak_memory(worker) - before < 128 * LIMIT  # of 1024 in each; zstd's window is 8 MiB
    exact = b"[" + b" " * (LIMIT - 2) + b"]"
    for coding, encode in ENCODERS.items():
        assert ask(service, encode(exact), content_encoding=coding)[2] == b"[]"
        assert ask(service, encode(exact + b" "), content_encoding=coding)[0] == 413
    assert service.pids("mosec_cy: Echo_1") == [worker]


def test_a_body_that_is_too_large_before_it_is_decoded(service: Service) -> None:
    noise = gzip.compress(random.Random(1).randbytes(LIMIT))
    assert len(noise) > LIMIT
    assert ask(service, noise, content_encoding="gzip")[0] == 413
