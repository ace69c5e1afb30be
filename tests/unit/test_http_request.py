"""Request heads: every vector whole, byte by byte and at every split point, against forbidden pages."""

from dataclasses import dataclass, field

import pytest

from tests.drivers.http_request import RequestParser, has_token
from tests.guard_page import GuardedMemory
from tests.http_vectors import ACCEPTED, BARE, LENGTH, OLD, POST, REFUSED, request

MEMORY = GuardedMemory()
ELSEWHERE = GuardedMemory()


@dataclass
class Outcome:
    """`result` as parse() gives it; `when`: the bytes that were there when it came; the rest for whole heads only."""

    result: int
    when: int = 0
    fields: dict[str, object] = field(default_factory=dict)
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)


def outcome_of(parser: RequestParser, data: memoryview) -> Outcome:
    result = parser.parse(data)
    if result <= 0:
        return Outcome(result)
    return Outcome(result, 0, parser.fields, parser.headers)


def parse(data: bytes, **limits: int) -> Outcome:
    """What becomes of `data`, after it was seen that no way to cut it changes that."""
    whole = outcome_of(RequestParser(**limits), MEMORY.last(data))
    assert outcome_of(RequestParser(**limits), MEMORY.first(data)) == whole
    parser = RequestParser(**limits)
    for when in range(len(data) + 1):
        dripped = outcome_of(parser, MEMORY.last(data[:when]))
        if dripped.result != 0:
            break
    assert dripped == whole
    for split in range(len(data)):
        parser = RequestParser(**limits)
        result = parser.parse(MEMORY.last(data[:split]))
        assert result in (0, whole.result)
        if result == 0:
            # The bytes have moved, and the state was put aside: neither matters.
            assert outcome_of(parser.moved(), ELSEWHERE.first(data)) == whole
    whole.when = when
    return whole


def test_all_of_a_request() -> None:
    head = (
        b"POST /v1/a%20b?x=%41&y=1?2 HTTP/1.1\r\nHost: example.org:8000\r\nContent-Type: application/json\r\n"
        b"content-length: 0012\r\nACCEPT-ENCODING: gzip, zstd\r\nContent-Encoding:gzip\r\nUpgrade: h2c\r\n"
        b"X-Empty:\r\nX-Blank: \t \r\nX_odd.1!#$%&'*+-^`|~: \t a b\tc\xe4\xff \t\r\nExpect: 100-Continue\r\n\r\n"
    )
    outcome = parse(head + b"hello world!GET / HTTP/1.1\r\n")
    assert outcome.result == outcome.when == len(head)
    assert outcome.fields == {
        "method": POST,
        "method_text": b"POST",
        "target": b"/v1/a%20b?x=%41&y=1?2",
        "path": b"/v1/a%20b",
        "query": b"x=%41&y=1?2",
        "path_encoded": True,
        "minor": 1,
        "keep_alive": True,
        "expect_continue": True,
        "bad_expectation": False,
        "body": LENGTH,
        "content_length": 12,
        "content_encoding": b"gzip",
        "accept_encoding": b"gzip, zstd",
        "host": b"example.org:8000",
    }
    assert outcome.headers == [
        (b"Host", b"example.org:8000"),
        (b"Content-Type", b"application/json"),
        (b"content-length", b"0012"),
        (b"ACCEPT-ENCODING", b"gzip, zstd"),
        (b"Content-Encoding", b"gzip"),
        (b"Upgrade", b"h2c"),
        (b"X-Empty", b""),
        (b"X-Blank", b""),
        (b"X_odd.1!#$%&'*+-^`|~", b"a b\tc\xe4\xff"),
        (b"Expect", b"100-Continue"),
    ]


@pytest.mark.parametrize(("data", "fields"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_accepted(data: bytes, fields: dict[str, object]) -> None:
    outcome = parse(data + b"rest")
    assert outcome.result == outcome.when == len(data)
    assert {name: outcome.fields[name] for name in fields} == fields


@pytest.mark.parametrize(("status", "data"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_at_the_byte_that_decides(status: int, data: bytes) -> None:
    outcome = parse(data + b"Y: z\r\n\r\nrest")
    assert (outcome.result, outcome.when) == (status, len(data))


def test_every_byte_in_every_place() -> None:
    """The classes of bytes as RFC 9110 section 5.6.2 and 5.5 and RFC 3986 have them, in blocks and at their edges."""
    token = set(b"!#$%&'*+-.^_`|~0123456789") | set(range(0x41, 0x5B)) | set(range(0x61, 0x7B))
    value = {9, *range(0x20, 0x7F), *range(0x80, 0x100)}
    target = set(range(0x21, 0x7F)) - set(b"#")
    for c in range(256):
        for room in (0, 3, 15, 16, 33):
            byte, around = bytes([c]), b"a" * room
            line = b"GET /" + around + byte + around + b" HTTP/1.1"
            for data, good, end in (
                (request(line=line), target, b" "),
                (request(b"N" + around + byte + around + b": v"), token, b":"),
                (request(b"N: " + around + byte + around), value, b""),
            ):
                accepted = RequestParser().parse(MEMORY.last(data)) > 0
                # The byte that ends the token just ends it sooner: not looked at here.
                assert byte == end or accepted == (c in good), (c, room, data)


def test_limit_of_the_request_line() -> None:
    data = request(line=b"GET /abc HTTP/1.1")
    assert parse(data, line=19).result == len(data)
    for line in range(1, 19):
        outcome = parse(data, line=line)
        assert (outcome.result, outcome.when) == (-414, line)
    # Empty lines before it are not part of it.
    assert parse(b"\r\n" + data, line=19).result == len(data) + 2
    # But of the head, whose limit holds within the line.
    outcome = parse(b"\r\n" + data, line=19, head=20)
    assert (outcome.result, outcome.when) == (-431, 20)


def test_limit_of_the_head() -> None:
    data = b"\r\n" + request(b"Name: value")
    assert parse(data, head=len(data)).result == len(data)
    for head in range(1, len(data)):
        outcome = parse(data, head=head)
        assert (outcome.result, outcome.when) == (-431, head)


def test_limit_of_header_lines() -> None:
    data = request(*[b"N%d: v" % i for i in range(4)])
    assert parse(data, headers=5).result == len(data)
    outcome = parse(data, headers=4)
    assert (outcome.result, outcome.when) == (-431, data.index(b"N3") + 1)
    assert parse(request(**OLD), headers=0).result > 0


def test_a_hundred_headers_and_no_more() -> None:
    lines = [b"Name-%d: value %d" % (i, i) for i in range(99)]
    parser = RequestParser()
    data = request(*lines)
    assert parser.parse(data) == len(data)
    assert parser.headers[1:] == [tuple(line.split(b": ")) for line in lines]
    assert parser.parse(request(*lines, b"one: more")) == -431


@pytest.mark.parametrize("limits", [{"headers": 101}, {"line": 0}, {"head": 0}, {"head": 1 << 31}])
def test_impossible_limits(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="limits"):
        RequestParser(**limits)


def test_a_dripped_head_is_looked_at_once() -> None:
    data = request(
        b"N" * 100 + b": " + b"v" * 100, b"Short: 1", line=b"METHOD" * 20 + b" /" + b"path" * 50 + b"?q HTTP/1.1"
    )
    parser = RequestParser()
    for n in range(len(data)):
        assert parser.parse(data[:n]) == 0
        # All but a CR whose LF is awaited.
        assert n - parser.seen <= 1


def test_what_was_seen_is_not_scanned_again() -> None:
    start = BARE + b"Host: a\r\nX-Long: "
    data = start + b"v" * 1000 + b"\r\n\r\n"
    parser = RequestParser()
    assert parser.parse(data[: len(start) + 900]) == 0
    corrupt = start + b"\0" * 900 + b"v" * 100 + b"\r\n\r\n"
    assert parser.parse(corrupt) == len(data)


def test_one_parser_for_many_heads() -> None:
    parser = RequestParser()
    long = request(
        b"Connection: close", b"Content-Length: 5", b"Expect: x", b"Content-Type: a/b", line=b"PUT /%41?q HTTP/1.1"
    )
    assert parser.parse(long) == len(long)
    assert parser.parse(b"GET\0") == -400
    assert parser.parse(request()) == len(request())
    fresh = RequestParser()
    fresh.parse(request())
    assert (parser.fields, parser.headers) == (fresh.fields, fresh.headers)


@pytest.mark.parametrize(
    ("path", "decoded"),
    [
        (b"/plain", b"/plain"),
        (b"/a%20b%2Fc%2f%C3%A4", b"/a b/c/\xc3\xa4"),
        (b"/%25%32%35", b"/%25"),
        (b"/%", None),
        (b"/a%4", None),
        (b"/%4g", None),
        (b"/%g4", None),
        (b"/%00", None),
    ],
)
def test_decoded_paths(path: bytes, decoded: bytes | None) -> None:
    parser = RequestParser()
    data = request(line=b"GET " + path + b" HTTP/1.1")
    assert parser.parse(MEMORY.last(data)) == len(data)
    assert parser.path_decoded == decoded


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"", False),
        (b"token", True),
        (b"a,\tTOKEN ,b", True),
        (b",,token", True),
        (b"a token", False),
        (b"tokens, atoken, toke", False),
        (b"t\x0fken", False),
    ],
)
def test_members_of_a_list(value: bytes, found: bool) -> None:
    assert has_token(value, b"token") is found


def test_any_contiguous_buffer_is_data() -> None:
    data = request()
    for buffer in (data, bytearray(data), memoryview(data)):
        assert RequestParser().parse(buffer) == len(data)
    with pytest.raises(TypeError):
        RequestParser().parse("text")
    with pytest.raises(BufferError):
        RequestParser().parse(memoryview(data + data)[::2])
