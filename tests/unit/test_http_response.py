"""Response heads, byte for byte, and as h11 reads them."""

from email.utils import formatdate

import h11
import pytest

from tests.drivers.http_response import ResponseWriter

COMMON = b"server: mosec_cy/1.2.3\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
NOVEMBER_1994 = 784111777


@pytest.fixture
def writer() -> ResponseWriter:
    writer = ResponseWriter(b"mosec_cy/1.2.3")
    writer.set_time(NOVEMBER_1994)
    return writer


def date_of(head: bytes) -> str:
    (date,) = [line[6:] for line in head.split(b"\r\n") if line.startswith(b"date: ")]
    return date.decode()


def test_all_of_a_head(writer: ResponseWriter) -> None:
    assert writer.head(200, b"application/json", 8) == (
        b"HTTP/1.1 200 OK\r\n" + COMMON + b"content-type: application/json\r\ncontent-length: 8\r\n\r\n"
    )


def test_extra_lines_and_close(writer: ResponseWriter) -> None:
    assert writer.head(405, b"text/plain", 0, b"allow: GET\r\nretry-after: 1\r\n", close=True) == (
        b"HTTP/1.1 405 Method Not Allowed\r\n" + COMMON + b"content-type: text/plain\r\ncontent-length: 0\r\n"
        b"connection: close\r\nallow: GET\r\nretry-after: 1\r\n\r\n"
    )


def test_keep_alive_of_an_old_client(writer: ResponseWriter) -> None:
    assert writer.head(200, b"", 1, keep_alive_10=True) == (
        b"HTTP/1.1 200 OK\r\n" + COMMON + b"content-length: 1\r\nconnection: keep-alive\r\n\r\n"
    )


def test_close_wins(writer: ResponseWriter) -> None:
    head = writer.head(200, b"", 1, keep_alive_10=True, close=True)
    assert b"connection: close\r\n" in head
    assert b"keep-alive" not in head


def test_chunked_has_no_length(writer: ResponseWriter) -> None:
    assert writer.head(200, b"text/event-stream", 7, chunked=True) == (
        b"HTTP/1.1 200 OK\r\n" + COMMON + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )


def test_no_length(writer: ResponseWriter) -> None:
    head = writer.head(200, b"", 7, no_length=True, close=True)
    assert head == b"HTTP/1.1 200 OK\r\n" + COMMON + b"connection: close\r\n\r\n"


def test_204_has_no_framing(writer: ResponseWriter) -> None:
    assert writer.head(204, b"", 0, chunked=True) == b"HTTP/1.1 204 No Content\r\n" + COMMON + b"\r\n"


def test_informational_has_extra_only(writer: ResponseWriter) -> None:
    assert writer.head(100, b"text/plain", 5, close=True) == b"HTTP/1.1 100 \r\n\r\n"
    assert writer.head(101, b"", 0, b"upgrade: h2c\r\n") == b"HTTP/1.1 101 \r\nupgrade: h2c\r\n\r\n"


# RFC 9110 section 15, RFC 6585, as the service answers and workers may.
REASONS = {
    200: "OK", 204: "No Content", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 406: "Not Acceptable", 408: "Request Timeout", 409: "Conflict", 411: "Length Required",
    413: "Content Too Large", 414: "URI Too Long", 415: "Unsupported Media Type", 417: "Expectation Failed",
    422: "Unprocessable Content", 426: "Upgrade Required", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway",
    503: "Service Unavailable", 504: "Gateway Timeout", 505: "HTTP Version Not Supported",
}  # fmt: skip


@pytest.mark.parametrize("status", range(100, 600))
def test_status_lines(writer: ResponseWriter, status: int) -> None:
    line = writer.head(status, b"", 0).split(b"\r\n")[0]
    assert line == f"HTTP/1.1 {status} {REASONS.get(status, '')}".encode()


@pytest.mark.parametrize("number", [0, 1, 9, 10, 99, 100, 12345678901234567890, 2**64 - 1])
def test_lengths(writer: ResponseWriter, number: int) -> None:
    assert b"\r\ncontent-length: %d\r\n" % number in writer.head(200, b"", number)


@pytest.mark.parametrize(
    "seconds",
    [
        0,
        1,
        59,
        86399,
        86400,
        951782399,  # before 29 February 2000
        951782400,
        951868800,  # 1 March 2000
        978307199,  # the end of 2000
        1709164800,  # 29 February 2024
        1709251200,
        4107542399,  # 28 February 2100, no leap year
        4107542400,
        253402300799,  # the end of 9999
    ],
)
def test_dates(writer: ResponseWriter, seconds: int) -> None:
    writer.set_time(seconds)
    assert date_of(writer.head(200, b"", 0)) == formatdate(seconds, usegmt=True)


def test_dates_of_800_years(writer: ResponseWriter) -> None:
    for seconds in range(0, 800 * 366 * 86400, 9 * 86400 + 4567):
        writer.set_time(seconds)
        assert date_of(writer.head(200, b"", 0)) == formatdate(seconds, usegmt=True)


def test_dates_out_of_range_stay_dates(writer: ResponseWriter) -> None:
    writer.set_time(-1)
    assert date_of(writer.head(200, b"", 0)) == "Thu, 01 Jan 1970 00:00:00 GMT"
    writer.set_time(2**62)
    assert date_of(writer.head(200, b"", 0)) == "Fri, 31 Dec 9999 23:59:59 GMT"


def test_largest_head_fits_its_room() -> None:
    extra = b"x-extra: " + b"x" * 373 + b"\r\n"
    head = ResponseWriter(b"s" * 100).head(431, b"t" * 256, 2**64 - 1, extra, keep_alive_10=True)
    assert len(extra) == 384
    assert len(head) <= 1024
    assert b"server: " + b"s" * 64 + b"\r\n" in head
    assert extra + b"\r\n" in head


@pytest.mark.parametrize(("content_type", "extra"), [(b"t" * 257, b""), (b"", b"x" * 385)])
def test_what_does_not_fit_is_refused(writer: ResponseWriter, content_type: bytes, extra: bytes) -> None:
    with pytest.raises(ValueError, match="beyond"):
        writer.head(200, content_type, 0, extra)


def test_h11_reads_it(writer: ResponseWriter) -> None:
    client = h11.Connection(our_role=h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(writer.head(503, b"text/plain", 2, b"retry-after: 1\r\n", close=True) + b"no")
    response = client.next_event()
    assert isinstance(response, h11.Response)
    assert (response.status_code, response.reason) == (503, b"Service Unavailable")
    assert list(response.headers) == [
        (b"server", b"mosec_cy/1.2.3"),
        (b"date", b"Sun, 06 Nov 1994 08:49:37 GMT"),
        (b"content-type", b"text/plain"),
        (b"content-length", b"2"),
        (b"connection", b"close"),
        (b"retry-after", b"1"),
    ]
    body = client.next_event()
    assert isinstance(body, h11.Data)
    assert body.data == b"no"
    assert isinstance(client.next_event(), h11.EndOfMessage)
