"""What reads bytes of the network, on any bytes: the same verdict however they are cut, and the one of the grammar."""

from __future__ import annotations

import re
import urllib.parse

from tests.drivers.http_request import ChunkedBody, RequestParser, accepted_coding, has_token
from tests.drivers.http_request import content_coding as coding_of
from tests.fuzz.guided.pieces import GUARDED, Pieces, ways_to_cut
from tests.fuzz.http_models import CHUNK_OVERHEAD, GZIP, ZSTD, model_accepted, model_chunked, model_content

REFUSALS = (-400, -414, -431, -501, -505)


# ---- request heads ---------------------------------------------------------------------------------


def head(data: bytes) -> None:
    """A request head: request line, headers and what follows from them."""
    pieces = Pieces(data)
    limits = {} if pieces.number() < 192 else {"line": 1 + pieces.number(), "head": 1 + pieces.number(2)}
    place = pieces.number(2)
    text = pieces.data
    whole = RequestParser(**limits)
    result = whole.parse(GUARDED.first(text))
    assert result in REFUSALS or 0 <= result <= len(text)
    expected = found(whole, result)
    for ends in ways_to_cut(text, place):
        assert in_parts(text, ends, limits) == expected
    if result > 0:
        assert whole.parse(text) == result
        check_reading(text[:result], whole)


def found(parser: RequestParser, result: int) -> object:
    """The verdict, with all that was found out if there is a head."""
    return (result, parser.fields, parser.headers, parser.path_decoded) if result > 0 else result


def in_parts(text: bytes, ends: list[int], limits: dict[str, int]) -> object:
    """The same, where the bytes come in parts with these ends, and the state is moved in between."""
    parser = RequestParser(**limits)
    result = 0
    for end in ends:
        result = parser.parse(GUARDED.last(text[:end]))
        if result:
            break
        parser = parser.moved()
    return found(parser, result)


def check_reading(text: bytes, parser: RequestParser) -> None:
    """Whatever was let through has one reading: that of splitting it into lines."""
    assert text.endswith(b"\r\n\r\n")
    assert text.count(b"\r") == text.count(b"\n") == text.count(b"\r\n")
    assert not any(c < 0x20 and c not in b"\r\n\t" for c in text)
    first, *lines = text.lstrip(b"\r\n")[:-4].split(b"\r\n")
    fields = parser.fields
    assert (first.split(b" ")) == [fields["method_text"], fields["target"], b"HTTP/1.%d" % fields["minor"]]
    named = [line.split(b":", 1) for line in lines]
    assert parser.headers == [(name, value.strip(b" \t")) for name, value in named]
    names = [name.lower() for name, _ in named]
    assert names.count(b"host") <= 1
    assert fields["minor"] == 0 or b"host" in names
    _check_framing(parser, fields)
    decoded = parser.path_decoded
    if decoded is not None:
        assert decoded == urllib.parse.unquote_to_bytes(fields["path"])
        assert b"\0" not in decoded
    else:
        assert re.search(rb"%(?![0-9A-Fa-f]{2})|%00", fields["path"])


def _check_framing(parser: RequestParser, fields: dict[str, object]) -> None:
    """Where the body ends, by RFC 9112 section 6.3, and whether another request may follow (section 9.3)."""
    values: dict[bytes, list[bytes]] = {}
    for name, value in parser.headers:
        values.setdefault(name.lower(), []).append(value)
    lengths, codings = values.get(b"content-length", []), values.get(b"transfer-encoding", [])
    assert len(lengths) + len(codings) <= 1
    length = int(lengths[0]) if lengths else 0
    assert fields["content_length"] == length
    assert fields["body"] == (2 if codings else 1 if length else 0)
    assert [coding.lower() for coding in codings] in ([], [b"chunked"])
    connection = b",".join(values.get(b"connection", []))
    closes, keeps = has_token(connection, b"close"), has_token(connection, b"keep-alive")
    members = [member.strip(b" \t").lower() for member in connection.split(b",")]
    assert (closes, keeps) == (b"close" in members, b"keep-alive" in members)
    assert fields["keep_alive"] == (not closes and (fields["minor"] == 1 or keeps))


# ---- bodies and codings ----------------------------------------------------------------------------


def decode(data: bytes, ends: list[int]) -> tuple[int, int, bytes]:
    """(last result, bytes consumed, body), where the bytes come in parts."""
    body = ChunkedBody()
    consumed, found, result = 0, b"", 0
    for end in ends:
        while result in (0, 1) and (consumed < end or result == 1):
            result, n, part = body.step(GUARDED.last(data[consumed:end]))
            consumed += n
            found += part
    return result, consumed, found


def decode_past(data: bytes) -> tuple[int, int, bytes]:
    """The same, where data is taken past the decoder, as a loop does that receives into the body itself."""
    body = ChunkedBody()
    consumed, found, result = 0, b"", 0
    while result in (0, 1) and consumed < len(data):
        if taken := data[consumed : consumed + body.expected]:
            body.took(len(taken))
            consumed += len(taken)
            found += taken
        else:
            result, n, part = body.step(GUARDED.last(data[consumed : consumed + 1]))
            consumed += n
            found += part
    return result, consumed, found


def chunked(data: bytes) -> None:
    """A chunked body."""
    pieces = Pieces(data)
    place = pieces.number(2)
    text = pieces.data
    whole = decode(text, [len(text)])
    assert whole[0] in (0, 2, -400)
    for ends in ways_to_cut(text, place):
        assert decode(text, ends) == whole
    past = decode_past(text)
    assert (past[1:], past[0] in (0, 1)) == (whole[1:], whole[0] in (0, 1))
    assert len(text) < CHUNK_OVERHEAD  # else the model would have to count
    model = model_chunked(text)
    assert (whole[0] == 2) == (model is not None)
    if model is not None:
        assert whole == (2, *model)


def codings(data: bytes) -> None:
    """Lines of Accept-Encoding and of Content-Encoding."""
    lines = Pieces(data).data.split(b"\n")[:8]
    for available in (GZIP, GZIP | ZSTD):
        assert accepted_coding(available, *lines) == model_accepted(available, lines)
    assert coding_of(*lines) == model_content(lines)
    for line in lines:
        for place in (GUARDED.first, GUARDED.last):
            assert accepted_coding(GZIP | ZSTD, place(line)) == model_accepted(GZIP | ZSTD, [line])
            assert coding_of(place(line)) == model_content([line])
