"""Near-valid request heads through three parsers: ours, h11 and llhttp (httptools).

Where they differ, the reason must be one of those listed here; a reason is found in the bytes, never in a verdict.
"""

from __future__ import annotations

import re
from typing import Any

import h11
import httptools
from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.drivers.http_request import RequestParser
from tests.fuzz.examples import examples

Reading = tuple[bytes, bytes, list[tuple[bytes, bytes]], int, bool]
"""Method, target, headers, HTTP/1.minor, and whether a chunked body follows."""

PIECES = {
    "method": [b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"HEAD", b"PATCH"],
    "target": [b"/", b"/a", b"/a?b=c", b"/%41", b"http://a/b", b"*", b"/a b", b"/\xc3\xa9", b"/#f", b"", b"a"],
    "version": [
        b"HTTP/1.1",
        b"HTTP/1.1",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"HTTP/1.2",
        b"HTTP/2.0",
        b"HTTP/1.10",
        b"http/1.1",
    ],
}
HEADERS = [
    b"Content-Length: 5", b"Content-Length: 0", b"Content-Length: +5", b"Content-Length: 5, 5", b"Content-Length:",
    b"Content-Length: 0x5", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, gzip", b"Transfer-Encoding: identity", b"Connection: close", b"Host: b",
    b"Connection: keep-alive", b"A: b", b"A:b", b"A: \t b \t", b"A:", b"A : b", b": b", b"A", b" folded", b"A: \x7f",
    b"A: \x01", b"A: \0", b"A: \xff", b"A: b\rc", b"A: b\nB: c", b"(A): b", b"X-_~!: y",
]  # fmt: skip
LINES = st.lists(st.sampled_from(HEADERS), max_size=4)
ENDS = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\r\n"])


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """A request head, most of it as it should be."""
    first = b" ".join(draw(st.sampled_from(PIECES[part])) for part in ("method", "target", "version"))
    lines = [first, *draw(st.sampled_from([[b"Host: a"]] * 6 + [[]])), *draw(LINES), b""]
    return b"".join(line + draw(ENDS) for line in lines)


def ours(data: bytes) -> Reading | None:
    parser = RequestParser()
    if parser.parse(data) <= 0:
        return None
    fields: dict[str, Any] = parser.fields
    return fields["method_text"], fields["target"], parser.headers, fields["minor"], fields["body"] == 2


def of_h11(data: bytes) -> Reading | None:
    peer = h11.Connection(our_role=h11.SERVER)
    try:
        peer.receive_data(data)
        request = peer.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(request, h11.Request):
        return None
    headers = list(request.headers.raw_items())
    chunked = any(name.lower() == b"transfer-encoding" for name, _ in headers)
    return request.method, request.target, headers, int(request.http_version[2:]), chunked


class _Collector:
    def __init__(self) -> None:
        self.target, self.complete = b"", False
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


def of_llhttp(data: bytes) -> Reading | None:
    found = _Collector()
    parser = httptools.HttpRequestParser(found)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        return None
    except httptools.HttpParserError:
        if not found.complete:
            return None
    if not found.complete:
        return None
    chunked = any(name.lower() == b"transfer-encoding" for name, _ in found.headers)
    return parser.get_method(), found.target, found.headers, int(parser.get_http_version()[2:]), chunked


FIRST = rb"\A[^\r\n]*"
REASONS = {
    # RFC 9112 unless said otherwise. What a peer lets through, and ours refuses because others may read it differently:
    "a line ends without CR (section 2.2)": rb"(?<!\r)\n",
    "a version that is not 1.0 or 1.1 (section 2.5; 505)": FIRST + rb" HTTP/(?!1\.[01]\r)",
    "* for another method than OPTIONS (section 3.2.4)": rb"\A(?!OPTIONS )\S+ \* ",
    "a target in none of the four forms (section 3.2)": rb"\A\S+ (?![/*]|http://)",
    "a fragment in the target (section 3.2, RFC 3986 section 3.5)": FIRST + rb"#",
    "bytes in the target that a URI has not (section 3.2)": FIRST + rb"[\x7f-\xff]",
    "no Host in HTTP/1.1 (section 3.2)": rb"(?s)\A[^\r\n]* HTTP/1\.1\r\n(?!(?:.*\r\n)?Host:)",
    "two Hosts (section 3.2)": rb"(?s)\r\nHost:.*\r\nHost:",
    "Content-Length is not one number (section 6.3)": rb"\r\nContent-Length:(?! [0-9]+\r)",
    "two Content-Lengths (section 6.3, item 5)": rb"(?s)\r\nContent-Length:.*\r\nContent-Length:",
    "Content-Length and Transfer-Encoding (section 6.3, item 3)": (
        rb"(?s)\r\nContent-Length:.*\r\nTransfer-Encoding:|\r\nTransfer-Encoding:.*\r\nContent-Length:"
    ),
    "two Transfer-Encodings (section 6.1)": rb"(?s)\r\nTransfer-Encoding:.*\r\nTransfer-Encoding:",
    "a transfer coding but chunked (section 6.1; 501)": rb"\r\nTransfer-Encoding:(?! chunked\r)",
    "Transfer-Encoding in HTTP/1.0 (section 6.1)": rb"(?s)\A[^\r\n]* HTTP/1\.0(?=\r).*\r\nTransfer-Encoding:",
    "a control character (RFC 9110 section 5.5)": rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)",
    "a folded line (section 5.2)": rb"\r\n[ \t]",
    "white space before the colon (section 5.1)": rb"\r\n[^\r\n:]+[ \t]:",
}
PATTERNS = {reason: re.compile(pattern) for reason, pattern in REASONS.items()}


@settings(max_examples=examples(800), deadline=None)
@given(heads())
def test_three_parsers(data: bytes) -> None:
    """What ours accepts, both others accept and read alike; what it refuses and another accepts has a reason."""
    reading, others = ours(data), [of_h11(data), of_llhttp(data)]
    reasons = [reason for reason, pattern in PATTERNS.items() if pattern.search(data)]
    if reading is not None:
        assert others == [reading, reading]
        assert reasons == []
    elif any(others):
        assert reasons, others
        event(reasons[0])
