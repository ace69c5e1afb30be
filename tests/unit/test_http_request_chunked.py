"""Chunked bodies: every vector whole, byte by byte and at every split point, against forbidden pages."""

import pytest

from tests.drivers.http_request import ChunkedBody
from tests.guard_page import GuardedMemory

MORE, DATA, DONE, BAD = 0, 1, 2, -400
OVERHEAD = 16384
MEMORY = GuardedMemory(pages=16)


def feed(body: ChunkedBody, data: memoryview) -> tuple[int, int, bytes]:
    """All steps into `data`: the last result, bytes consumed, and the data found."""
    found = b""
    consumed = 0
    while True:
        result, n, part = body.step(data[consumed:])
        consumed += n
        found += part
        assert (result == DATA) == (part != b"")
        if result != DATA:
            return result, consumed, found


def decode(data: bytes) -> tuple[int, int, bytes]:
    """What becomes of `data`, after it was seen that no way to cut it changes that."""
    whole = feed(ChunkedBody(), MEMORY.last(data))
    assert feed(ChunkedBody(), MEMORY.first(data)) == whole
    for cuts in ([*range(1, len(data))], *([cut] for cut in range(1, len(data)))):
        assert decode_in_parts(data, cuts) == whole
    return whole


def decode_in_parts(data: bytes, cuts: list[int]) -> tuple[int, int, bytes]:
    body = ChunkedBody()
    consumed, found = 0, b""
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        result, n, part = feed(body, MEMORY.last(data[start:end]))
        consumed += n
        found += part
        if result != MORE:
            break
        assert n == end - start
    return result, consumed, found


ACCEPTED = {
    "no data": (b"0\r\n\r\n", b""),
    "one chunk": (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "two chunks": (b"5\r\nhello\r\n00a\r\n, chunks!\n\r\n0\r\n\r\n", b"hello, chunks!\n"),
    "upper case": (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    "data that looks like an end": (b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", b"\r\n0\r\n\r\n"),
    "sixteen digits": (b"0000000000000001\r\nx\r\n0000000000000000\r\n\r\n", b"x"),
    "extension": (b"1;a\r\nx\r\n0\r\n\r\n", b"x"),
    "extension with a value": (b"1;a=b\r\nx\r\n0;c=d\r\n\r\n", b"x"),
    "extensions with blanks": (b"1 ; a\t= b ;\tc ; d=e \t;f\r\nx\r\n0\r\n\r\n", b"x"),
    "quoted value": (b'1;a="b \\" \\\\ ;\xff\t";c="" ;d\r\nx\r\n0\r\n\r\n', b"x"),
    "trailer": (b"1\r\nx\r\n0\r\nA: b\r\n\r\n", b"x"),
    "trailers": (b"1\r\nx\r\n0\r\nA:\r\nContent-Length: 5 \t\xff\r\n\r\n", b"x"),
}


@pytest.mark.parametrize(("data", "body"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_accepted(data: bytes, body: bytes) -> None:
    assert decode(data + b"GET /") == (DONE, len(data), body)


# Each ends with the byte that decides.
REFUSED = {
    "no digit": b"\r",
    "white space first": b" ",
    "sign": b"+",
    "hexadecimal prefix": b"0x",
    "not a digit": b"g",
    "seventeen digits": b"00000000000000001",
    "seventeen digits that are large": b"fffffffffffffffff",
    "bare LF after the size": b"5\n",
    "bare CR after the size": b"5\rh",
    "white space before the CRLF": b"5 \r",
    "a word after the size": b"5 a",
    "no name of an extension": b"5;\r",
    "no name before '='": b"5;=",
    "an extension with a slash": b"5;a/",
    "two names": b"5;a b",
    "blank after a name": b"5;a \r",
    "no value": b"5;a=\r",
    "two values": b"5;a=b=",
    "a value of two words": b"5;a=b c",
    "bare LF after an extension": b"5;a\n",
    "bare CR after an extension": b"5;a\rx",
    "LF in quotes": b'5;a="\n',
    "CR in quotes": b'5;a="\r',
    "NUL in quotes": b'5;a="\0',
    "escaped CR": b'5;a="\\\r',
    "text after quotes": b'5;a="b"c',
    "DEL in quotes": b'5;a="\x7f',
    "data too long": b"1\r\nxy",
    "bare LF after data": b"1\r\nx\n",
    "bare CR after data": b"1\r\nx\r0",
    "next size is bad": b"1\r\nx\r\n\r",
    "bare LF at the end": b"0\r\n\n",
    "bare CR at the end": b"0\r\n\rx",
    "trailer without a colon": b"0\r\nA\r",
    "trailer without a name": b"0\r\n:",
    "space before the colon of a trailer": b"0\r\nA ",
    "folded trailer": b"0\r\nA: b\r\n ",
    "bare LF after a trailer": b"0\r\nA: b\n",
    "bare CR after a trailer": b"0\r\nA: b\rc",
    "NUL in a trailer": b"0\r\nA: \0",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_refused_at_the_byte_that_decides(data: bytes) -> None:
    result, consumed, _ = decode(data + b"\r\n0\r\n\r\n")
    assert (result, consumed) == (BAD, len(data))


def test_a_broken_body_stays_broken() -> None:
    body = ChunkedBody()
    assert body.step(b"x")[0] == BAD
    assert body.step(b"0\r\n\r\n")[:2] == (BAD, 0)


def test_an_ended_body_takes_no_more() -> None:
    body = ChunkedBody()
    assert body.step(b"0\r\n\r\n") == (DONE, 5, b"")
    assert body.step(b"0\r\n\r\n") == (DONE, 0, b"")


def test_greatest_size() -> None:
    body = ChunkedBody()
    assert body.step(b"ffffffffffffffff\r\nabc") == (DATA, 21, b"abc")
    assert body.expected == 2**64 - 4


def test_data_that_is_received_past_the_decoder() -> None:
    body = ChunkedBody()
    assert body.expected == 0
    assert body.step(b"a\r\n")[0] == MORE
    assert body.expected == 10
    body.took(4)
    assert body.step(b"45") == (DATA, 2, b"45")
    with pytest.raises(ValueError, match="5 bytes of data, where 4 are expected"):
        body.took(5)
    body.took(4)
    assert body.expected == 0
    assert body.step(b"\r\n0\r\n\r\n")[0] == DONE


def test_extensions_are_bounded() -> None:
    fits = b"1;" + b"a" * (OVERHEAD - 1) + b"\r\nx\r\n0\r\n\r\n"
    assert feed(ChunkedBody(), MEMORY.last(fits)) == (DONE, len(fits), b"x")
    result, consumed, _ = feed(ChunkedBody(), MEMORY.last(b"1;" + b"a" * (OVERHEAD + 1)))
    assert (result, consumed) == (BAD, len(b"1;") + OVERHEAD + 1)


def test_extensions_are_bounded_over_all_chunks() -> None:
    chunk = b"1;abcdefg=h\r\nx\r\n"
    result, consumed, found = feed(ChunkedBody(), MEMORY.last(chunk * 3000))
    assert result == BAD
    # Nine bytes behind the ';', and its CR, of which the byte of data pays for one.
    assert OVERHEAD // 9 <= len(found) <= OVERHEAD // 8 + 1
    assert consumed < len(chunk) * 3000


def test_data_pays_for_extensions() -> None:
    chunk = b"40;chunk-signature=" + b"0" * 40 + b"\r\n" + b"x" * 64 + b"\r\n"
    body = ChunkedBody()
    for _ in range(2000):
        result, consumed, found = feed(body, MEMORY.last(chunk))
        assert (result, consumed, found) == (MORE, len(chunk), b"x" * 64)
    assert body.step(b"0\r\n\r\n")[0] == DONE


def test_trailers_are_bounded() -> None:
    line = b"Name: value\r\n"
    start, count = b"0\r\n", OVERHEAD // len(line)
    fits = start + line * (count - 1) + b"\r\n"
    assert feed(ChunkedBody(), MEMORY.last(fits)) == (DONE, len(fits), b"")
    result, consumed, _ = feed(ChunkedBody(), MEMORY.last(start + line * (count + 1)))
    assert (result, consumed) == (BAD, len(start) + OVERHEAD + 1)
