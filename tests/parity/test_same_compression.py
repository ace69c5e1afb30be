"""Compressed bodies and answers under Mosec and under mosec_cy: the same results, but for what is listed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.codings import DECODERS, ENCODERS
from tests.parity.peer import Answer, Pair, running

PROGRAM = """
    from PACKAGE import Server, Worker

    class Echo(Worker):
        def forward(self, data):
            return data

    class Raw(Worker):
        resp_mime_type = "application/octet-stream"

        def deserialize(self, data):
            return bytes(data)

        def forward(self, data):
            return data * 2

        def serialize(self, data):
            return data

    if __name__ == "__main__":
        server = Server()
        server.append_worker(Echo)
        server.append_worker(Raw, route="/raw")
        server.run()
"""

LIMIT = 100_000  # bytes; of a request
BODY = b"abc" * 1000


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running(PROGRAM, tmp_path_factory, "--compression", "--max-request-size", str(LIMIT)) as pair:
        yield pair


def ask(pair: Pair, content: bytes, coding: str) -> tuple[Answer, Answer]:
    headers = {"content-encoding": coding, "accept-encoding": "identity"}
    return pair.ask("POST", "/raw", content=content, headers=headers)


@pytest.mark.parametrize("coding", ENCODERS)
def test_requests(pair: Pair, coding: str) -> None:
    theirs, ours = ask(pair, ENCODERS[coding](BODY), coding)
    assert ours == theirs
    assert ours.body == BODY * 2
    theirs, ours = ask(pair, ENCODERS[coding](bytes(LIMIT + 1)), coding)
    assert ours == theirs.with_type()
    assert ours.status == 413
    theirs, ours = ask(pair, ENCODERS[coding](bytes(LIMIT)), coding)
    assert ours == theirs


ACCEPTED = {
    "gzip": "gzip",
    "zstd": "zstd",
    "gzip;q=0.5, zstd": "zstd",
    "gzip, zstd;q=0.5": "gzip",
    "gzip, zstd": "zstd",
    "br": None,
    "br, gzip;q=0.1": "gzip",
    "*": "zstd",
    "": None,
    "identity": None,
    "gzip;q=0": None,
}


@pytest.mark.parametrize("accepted", ACCEPTED)
def test_answers(pair: Pair, accepted: str) -> None:
    for client in (pair.theirs, pair.ours):
        with client.stream("POST", "/raw", content=BODY, headers={"accept-encoding": accepted}) as response:
            body = b"".join(response.iter_raw())
        coding = response.headers.get("content-encoding")
        assert coding == ACCEPTED[accepted]
        assert (DECODERS[coding](body) if coding else body) == BODY * 2
        assert response.headers["vary"] == "accept-encoding"


@pytest.mark.parametrize("coding", ["br", "deflate", "unknown", "gzip, gzip", "gzip, zstd"])
def test_codings_that_are_not_known(pair: Pair, coding: str) -> None:
    """Only the text differs: Mosec has none."""
    theirs, ours = ask(pair, b"abc", coding)
    assert ours.status == theirs.status == 415
    assert theirs.body == b"" and ours.body.startswith(b"content-encoding is not supported")


def test_identity_is_no_coding(pair: Pair) -> None:
    theirs, ours = ask(pair, BODY, "identity")
    assert ours == theirs
    assert ours.status == 200


# ---- on purpose different; both sides are stated ---------------------------------------------------


@pytest.mark.parametrize("coding", ENCODERS)
def test_malformed_data_differs(pair: Pair, coding: str) -> None:
    """Mosec calls it too large, and does not look behind the end of gzip's."""
    whole = ENCODERS[coding](BODY)
    for content in (b"no such thing", whole[:-5], whole[:10], whole + b"more"):
        theirs, ours = ask(pair, content, coding)
        if coding == "gzip" and content.endswith(b"more"):
            assert (theirs.status, theirs.body) == (200, BODY * 2)
        else:
            assert (theirs.status, theirs.body) == (413, b"request body is too large")
        assert ours.status == 400 and ours.body.startswith(b"decoding error: the body ")


@pytest.mark.parametrize("coding", ["GZIP", "x-gzip"])
def test_other_names_differ(pair: Pair, coding: str) -> None:
    """Names are compared without case, and x-gzip is gzip (RFC 9110 section 8.4.1)."""
    theirs, ours = ask(pair, ENCODERS["gzip"](BODY), coding)
    assert theirs.status == 415
    assert (ours.status, ours.body) == (200, BODY * 2)


@pytest.mark.parametrize("coding", ENCODERS)
def test_nothing_compressed_differs(pair: Pair, coding: str) -> None:
    """Ours asks the worker: there was a body."""
    theirs, ours = ask(pair, ENCODERS[coding](b""), coding)
    assert theirs.body == b"no data provided"
    assert (ours.status, ours.body) == (200, b"")


def test_small_answers_differ(pair: Pair) -> None:
    """Below 1 KiB ours are sent as they are."""
    headers = {"accept-encoding": "gzip"}
    theirs, ours = (client.post("/raw", content=bytes(300), headers=headers) for client in (pair.theirs, pair.ours))
    assert theirs.content == ours.content
    assert (theirs.headers.get("content-encoding"), ours.headers.get("content-encoding")) == ("gzip", None)
