"""Content codings from arbitrary bytes: headers against a plain reading of the RFC's grammar, bodies against zlib."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mosec_cy._process import codings
from mosec_cy._process.codings import BodyTooLarge
from mosec_cy.errors import DecodingError
from tests.codings import ENCODERS
from tests.drivers.http_request import accepted_coding
from tests.drivers.http_request import content_coding as coding_of
from tests.fuzz.http_models import GZIP, ZSTD, model_accepted, model_content
from tests.guard_page import GuardedMemory

GUARDED = GuardedMemory()

PIECES = st.sampled_from(
    [b"gzip", b"GZip", b"x-gzip", b"zstd", b"identity", b"br", b"*", b",", b", ", b" ", b"\t", b";", b";q=", b"; Q=",
     b"0", b"1", b"0.5", b"0.999", b"1.000", b"1.001", b"0.1234", b".", b"=", b'"', b"\xff", b"\0", b"q"]
) | st.binary(max_size=3)  # fmt: skip
LINES = st.lists(st.lists(PIECES, max_size=12).map(b"".join), max_size=4)


@given(LINES, st.sampled_from([GZIP, GZIP | ZSTD]))
@example([b"gzip;q=0.5", b"", b"*;q=0.501, identity;q=0"], GZIP | ZSTD)
def test_accept_encoding(lines: list[bytes], available: int) -> None:
    expected = model_accepted(available, lines)
    assert accepted_coding(available, *lines) == expected
    for place in (GUARDED.first, GUARDED.last):  # a line alone: it must not be read beyond
        for line in lines:
            assert accepted_coding(available, place(line)) == model_accepted(available, [line])


@given(LINES)
@example([b"gzip, identity", b"x-gzip"])
def test_content_encoding(lines: list[bytes]) -> None:
    assert coding_of(*lines) == model_content(lines)
    for place in (GUARDED.first, GUARDED.last):
        for line in lines:
            assert coding_of(place(line)) == model_content([line])


PARTS = st.lists(st.binary(max_size=300) | st.integers(0, 200_000).map(bytes), min_size=1, max_size=4)
CHANGES = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 4), st.binary(max_size=4)), max_size=3)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@given(parts=PARTS, limit=st.integers(0, 400_000))
def test_bodies(coding: str, parts: list[bytes], limit: int) -> None:
    body = b"".join(map(ENCODERS[coding], parts))
    plain = b"".join(parts)
    if len(plain) > limit:
        with pytest.raises(BodyTooLarge):
            codings.decode(coding, body, limit)
    else:
        assert codings.decode(coding, body, limit) == plain


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@given(parts=PARTS, changes=CHANGES, limit=st.integers(0, 400_000))
def test_corrupt_bodies(coding: str, parts: list[bytes], changes: list[tuple[int, int, bytes]], limit: int) -> None:
    body = b"".join(map(ENCODERS[coding], parts))
    for at, length, new in changes:
        body = body[:at] + new + body[at + length :]
    try:
        decoded = codings.decode(coding, body, limit)
    except (BodyTooLarge, DecodingError):
        return
    assert len(decoded) <= limit
    if coding == "gzip":
        assert decoded == gzip.decompress(body)
