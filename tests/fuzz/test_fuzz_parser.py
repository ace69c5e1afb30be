"""The parser and the chunked decoder on random bytes: the same verdict however they are cut, and never a crash."""

import h11
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.drivers.http_request import RequestParser
from tests.fuzz.examples import examples
from tests.fuzz.guided.http_targets import REFUSALS, check_reading, decode, found, in_parts
from tests.guard_page import GuardedMemory

MEMORY = GuardedMemory()
SEEDS = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /inference?a=%20 HTTP/1.1\r\nHost: example.org:80\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\n",
    b"\r\nPUT http://[::1]:8/x HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\nConnection: te, close\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nhost:\r\nConnection: keep-alive\r\nAccept-Encoding: gzip;q=0.5, zstd\r\n\r\n",
    b"GET /old HTTP/1.0\r\nConnection: keep-alive\r\nX: \tlong " + b"value " * 9 + b"\r\n\r\n",
    b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nUpgrade: h2c\r\nContent-Type: a/b\r\n\r\n",
]
BODIES = [
    b"5\r\nhello\r\n0\r\n\r\n",
    b'5;a=b ; c="d\\"e"\r\nhello\r\n00;x\r\nTrailer: value\r\nB:\r\n\r\n',
    b"1f\r\n" + b"x" * 31 + b"\r\nA\r\n0123456789\r\n000\r\n\r\n",
]
PIECES = [
    b"\r\n", b"\r", b"\n", b"\0", b" ", b"\t", b":", b",", b";", b'"', b"\\", b"%", b"?", b"*", b"\x7f", b"\xff", b"0",
    b"Host: b\r\n", b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n",
    b"Connection: close\r\n", b"HTTP/1.0", b"HTTP/2.0", b"http://", b"0\r\n",
]  # fmt: skip


def mutated(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """A seed with a few of its ranges replaced by nothing, by a piece of the grammar, or by any bytes."""
    changes = st.lists(
        st.tuples(st.integers(0, 200), st.integers(0, 3), st.sampled_from(PIECES) | st.binary(max_size=3)), max_size=4
    )

    def change(seed: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
        for at, length, new in edits:
            seed = seed[:at] + new + seed[at + length :]
        return seed

    return st.builds(change, st.sampled_from(seeds), changes)


CUTS = st.lists(st.integers(0, 250), max_size=6).map(sorted)
LIMITS = st.fixed_dictionaries(
    {}, optional={"line": st.integers(1, 60), "head": st.integers(1, 200), "headers": st.integers(0, 5)}
)


@settings(max_examples=examples(600), deadline=None)
@given(data=mutated(SEEDS) | st.binary(max_size=60), cuts=CUTS, limits=LIMITS)
def test_a_head_means_the_same_however_it_is_cut(data: bytes, cuts: list[int], limits: dict[str, int]) -> None:
    whole = RequestParser(**limits)
    result = whole.parse(MEMORY.first(data))
    expected = found(whole, result)
    assert result in REFUSALS or 0 <= result <= len(data)
    assert in_parts(data, [*cuts, len(data)], limits) == expected


@settings(max_examples=examples(600), deadline=None)
@given(data=mutated(SEEDS))
def test_what_is_accepted_has_one_reading(data: bytes) -> None:
    """The properties that keep requests apart, checked on the raw lines of whatever was let through."""
    parser = RequestParser()
    result = parser.parse(data)
    if result > 0:
        check_reading(data[:result], parser)


NAMES = st.text("abcXYZ019-_.!~", min_size=1, max_size=40).map(str.encode).filter(
    lambda name: name.lower() not in (b"te", b"host")
)  # fmt: skip
VALUES = st.text([*map(chr, range(0x21, 0x7F)), " ", "\t"], max_size=60).map(lambda text: text.strip(" \t").encode())
TARGETS = st.text("abc/%20?=&.~-", max_size=50).map(lambda text: b"/" + text.encode())


@settings(max_examples=examples(300), deadline=None)
@given(
    method=st.sampled_from([b"GET", b"POST", b"DELETE", b"OPTIONS", b"PURGE"]),
    target=TARGETS,
    minor=st.integers(0, 1),
    headers=st.lists(st.tuples(NAMES, VALUES), max_size=12),
    length=st.none() | st.integers(0, 10**15),
    connection=st.sampled_from([None, b"close", b"keep-alive", b"Keep-Alive, x", b"x,CLOSE"]),
)
def test_h11_reads_valid_heads_alike(
    method: bytes,
    target: bytes,
    minor: int,
    headers: list[tuple[bytes, bytes]],
    length: int | None,
    connection: bytes | None,
) -> None:
    lines = [(b"Host", b"example.org"), *headers]
    if length is not None:
        lines.append((b"Content-Length", b"%d" % length))
    if connection is not None:
        lines.append((b"Connection", connection))
    data = b"%s %s HTTP/1.%d\r\n" % (method, target, minor) + b"".join(b"%s: %s\r\n" % line for line in lines) + b"\r\n"

    parser = RequestParser()
    assert parser.parse(MEMORY.last(data)) == len(data)
    peer = h11.Connection(our_role=h11.SERVER)
    peer.receive_data(data)
    event = peer.next_event()
    assert isinstance(event, h11.Request)
    fields = parser.fields
    assert (fields["method_text"], fields["target"]) == (event.method, event.target)
    assert parser.headers == list(event.headers.raw_items()) == lines
    assert b"1.%d" % fields["minor"] == event.http_version
    assert fields["content_length"] == (length or 0)
    # h11 never keeps an HTTP/1.0 connection alive.
    if minor == 1 and not length:
        assert fields["keep_alive"] == stays_open(peer)


def stays_open(peer: h11.Connection) -> bool:
    """Does h11 keep the connection for another request, after it has answered one without a body?"""
    assert isinstance(peer.next_event(), h11.EndOfMessage)
    peer.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
    peer.send(h11.EndOfMessage())
    return peer.our_state is h11.DONE


@settings(max_examples=examples(600), deadline=None)
@given(data=mutated(BODIES) | st.binary(max_size=40), cuts=CUTS)
def test_a_chunked_body_means_the_same_however_it_is_cut(data: bytes, cuts: list[int]) -> None:
    whole = decode(data, [len(data)])
    assert whole[0] in (0, 2, -400)
    assert decode(data, [*(min(cut, len(data)) for cut in cuts), len(data)]) == whole


@settings(max_examples=examples(200), deadline=None)
@given(
    parts=st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    extension=st.sampled_from([b"", b";a", b' ; a = "b;\\"\t"', b";a=b;c=d"]),
    trailers=st.sampled_from([b"", b"A: b\r\n", b"A:\r\nB: c\r\n"]),
    cuts=CUTS,
)
def test_a_chunked_body_gives_back_its_data(
    parts: list[bytes], extension: bytes, trailers: bytes, cuts: list[int]
) -> None:
    data = b"".join(b"%x%s\r\n%s\r\n" % (len(part), extension, part) for part in parts)
    data += b"0" + extension + b"\r\n" + trailers + b"\r\n"
    expected = (2, len(data), b"".join(parts))
    assert decode(data + b"next", [*(min(cut, len(data)) for cut in cuts), len(data) + 4]) == expected
