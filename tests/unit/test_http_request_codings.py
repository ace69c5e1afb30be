"""Content-Encoding and Accept-Encoding, by RFC 9110 sections 8.4 and 12.5.3."""

import pytest

from tests.drivers.http_request import accepted_coding, content_coding

NONE, GZIP, ZSTD, OTHER = 0, 1, 2, 4


@pytest.mark.parametrize(
    ("values", "coding"),
    [
        ([], NONE),
        ([b""], NONE),
        ([b"gzip"], GZIP),
        ([b"GZip"], GZIP),
        ([b"x-gzip"], GZIP),
        ([b"zstd"], ZSTD),
        ([b"identity"], NONE),
        ([b"identity, gzip"], GZIP),
        ([b", gzip ,\t,"], GZIP),
        ([b"gzip", b"", b"identity"], GZIP),
        ([b"br"], OTHER),
        ([b"deflate"], OTHER),
        ([b"gzip, gzip"], OTHER),
        ([b"gzip", b"zstd"], OTHER),
        ([b"zstd", b"br"], OTHER),
        ([b"br", b"identity"], OTHER),
        ([b"gzip;q=1"], OTHER),
        ([b"gzip zstd"], OTHER),
        ([b"gzip\xff"], OTHER),
        ([b"gzi"], OTHER),
        ([b"gzipp"], OTHER),
        ([b"\0"], OTHER),
        ([b"*"], OTHER),
    ],
)
def test_content_coding(values: list[bytes], coding: int) -> None:
    assert content_coding(*values) == coding


@pytest.mark.parametrize(
    ("values", "coding"),
    [
        ([b""], NONE),
        ([b"gzip"], GZIP),
        ([b"GZIP"], GZIP),
        ([b"x-gzip"], GZIP),
        ([b"gzip, zstd"], ZSTD),
        ([b"zstd, gzip"], ZSTD),
        ([b"gzip, deflate, br, zstd"], ZSTD),
        ([b"gzip, deflate, br"], GZIP),
        ([b"br"], NONE),
        ([b"gzip;q=0.9, zstd;q=0.8"], GZIP),
        ([b"gzip;q=0.901, zstd;q=0.9"], GZIP),
        ([b"gzip", b"zstd;q=0.5"], GZIP),
        ([b"zstd;q=0.5", b"", b"gzip;q=0.25"], ZSTD),
        ([b"gzip;q=0"], NONE),
        ([b"gzip;q=0.000"], NONE),
        ([b"gzip;q=0.001"], GZIP),
        ([b"*"], ZSTD),
        ([b"*;q=0"], NONE),
        ([b"*, zstd;q=0"], GZIP),
        ([b"gzip, *;q=0"], GZIP),
        ([b"zstd;q=0.1, *;q=0.2"], GZIP),
        ([b"identity"], NONE),
        ([b"identity, gzip"], GZIP),
        ([b"identity, gzip;q=0.9"], NONE),
        ([b"identity;q=0.5, gzip;q=0.9, zstd;q=0.5"], GZIP),
        ([b"identity;q=0.5, *"], ZSTD),
        ([b"gzip, gzip;q=0"], NONE),
        ([b" gzip\t; \tQ=1.000 "], GZIP),
        ([b"gzip;q=1."], GZIP),
        ([b"gzip;q=0."], NONE),
        ([b",,gzip,,"], GZIP),
        ([b"gzip;q=1.001"], NONE),
        ([b"gzip;q=2"], NONE),
        ([b"gzip;q=0.1234"], NONE),
        ([b"gzip;q="], NONE),
        ([b"gzip;q"], NONE),
        ([b"gzip;"], NONE),
        ([b"gzip;q =1"], NONE),
        ([b"gzip;q=1;q=1"], NONE),
        ([b"gzip;level=1"], NONE),
        ([b"gzip;q=-1, zstd"], ZSTD),
        ([b"gzip zstd"], NONE),
        ([b";q=1"], NONE),
        ([b'"gzip"'], NONE),
    ],
)
def test_accepted_coding(values: list[bytes], coding: int) -> None:
    assert accepted_coding(GZIP | ZSTD, *values)[0] == coding


@pytest.mark.parametrize(("value", "coding"), [(b"zstd, gzip;q=0.1", GZIP), (b"zstd", NONE), (b"*", GZIP)])
def test_what_is_not_available_is_not_chosen(value: bytes, coding: int) -> None:
    assert accepted_coding(GZIP, value)[0] == coding


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        ([b""], False),
        ([b"gzip"], False),
        ([b"identity;q=0"], True),
        ([b"gzip;q=0.5, identity;q=0"], True),
        ([b"*;q=0"], True),
        ([b"gzip, *;q=0"], True),
        ([b"identity;q=0.001, *;q=0"], False),
        ([b"*;q=0", b"identity"], False),
        ([b"*"], False),
    ],
)
def test_whether_plain_is_refused(values: list[bytes], refused: bool) -> None:
    assert accepted_coding(GZIP | ZSTD, *values)[1] is refused
