"""What the engine writes from bytes of users, on any bytes: it stays in its room, and readers find what was meant."""

from __future__ import annotations

import email.utils

import pytest

from tests.drivers.http_response import ResponseWriter, format_event
from tests.fuzz.guided.pieces import Pieces

MOST_TYPE, MOST_EXTRA = 256, 384
LAST_SECOND = 253402300799  # of the year 9999


def writer(data: bytes) -> None:
    """A response head: status, content type, extra lines, framing."""
    pieces = Pieces(data)
    flags = pieces.number()
    status, second, length = pieces.number(2), pieces.number(5), pieces.number(8)
    content_type, extra = pieces.text(MOST_TYPE + 1), pieces.text(MOST_EXTRA + 1)
    server = pieces.text(80)
    options = {"close": flags & 1 != 0, "keep_alive_10": flags & 2 != 0, "no_length": flags & 4 != 0}
    options["chunked"] = flags & 8 != 0
    response = ResponseWriter(server)
    response.set_time(second)
    if len(content_type) > MOST_TYPE or len(extra) > MOST_EXTRA:
        with pytest.raises(ValueError, match="beyond"):
            response.head(status, content_type, length, extra, **options)
        return
    written = response.head(status, content_type, length, extra, **options)
    line, rest = written.split(b"\r\n", 1)
    assert line.startswith(b"HTTP/1.1 %d " % status)
    expected = b""
    if status >= 200:
        date = email.utils.formatdate(min(second, LAST_SECOND), usegmt=True).encode()
        expected = b"server: " + server[:64] + b"\r\ndate: " + date + b"\r\n"
        expected += b"content-type: " + content_type + b"\r\n" if content_type else b""
        expected += _framing(status, length, options)
        expected += b"connection: close\r\n" if options["close"] else b""
        expected += b"connection: keep-alive\r\n" if options["keep_alive_10"] and not options["close"] else b""
    assert rest == expected + extra + b"\r\n"


def _framing(status: int, length: int, options: dict[str, bool]) -> bytes:
    if status == 204:
        return b""
    if options["chunked"]:
        return b"transfer-encoding: chunked\r\n"
    return b"" if options["no_length"] else b"content-length: %d\r\n" % length


def event(data: bytes) -> None:
    """A server-sent event, read back as WHATWG HTML section 9.2.6 says."""
    pieces = Pieces(data)
    kind = pieces.number()
    name = (None, b"error", b"x")[kind % 3]
    prefix = (b"", b"inference error: ")[kind >> 4 & 1]
    text = pieces.data
    written = format_event(text, name, prefix)
    assert written.endswith(b"\n\n")
    assert written.index(b"\n\n") == len(written) - 2, "one event, and no more"
    assert b"\r" not in written
    found_name, found = None, []
    for line in written[:-2].split(b"\n"):
        field, _, value = line.partition(b": ")
        if field == b"event":
            found_name = value
        else:
            assert field == b"data"
            found.append(value)
    assert found_name == name
    assert b"\n".join(found) == prefix + text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
