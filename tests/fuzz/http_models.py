"""Plain readings of the RFCs' grammars, to hold the engine's against."""

from __future__ import annotations

import re

NONE, GZIP, ZSTD, OTHER = 0, 1, 2, 4
"""Content codings, by the engine's numbers."""
CHUNK_OVERHEAD = 16384
"""Bytes of chunk extensions, or of trailers, from which on the engine refuses what the grammar would admit."""

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
ALIASES = {b"x-gzip": b"gzip"}

# RFC 9110 sections 12.4.2 and 12.5.3
MEMBER = re.compile(
    rb"[ \t]*(?P<name>" + TOKEN + rb")[ \t]*"
    rb"(?:;[ \t]*[qQ]=(?P<weight>0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*)?"
)

# RFC 9112 section 7.1; of white space only what its sections on bad white space admit
VALUE = rb"[\t\x20-\x7e\x80-\xff]"
QUOTED = rb'"(?:[\t\x20!\x23-\x5b\x5d-\x7e\x80-\xff]|\\' + VALUE + rb')*"'
EXTENSION = rb"[ \t]*;[ \t]*" + TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + TOKEN + rb"|" + QUOTED + rb"))?"
CHUNK_LINE = re.compile(rb"(?P<size>[0-9A-Fa-f]{1,16})(?:" + EXTENSION + rb")*\r\n")
TRAILERS = re.compile(rb"(?:" + TOKEN + rb":" + VALUE + rb"*\r\n)*\r\n")


def model_accepted(available: int, lines: list[bytes]) -> tuple[int, bool]:
    """Coding of the answer to these lines of Accept-Encoding, and whether one without a coding is refused."""
    weights: dict[bytes, float] = {}
    for member in b",".join(lines).split(b","):
        if match := MEMBER.fullmatch(member):
            name = match["name"].lower()
            name = ALIASES.get(name, name)
            weights[name] = min(weights.get(name, 1), float(match["weight"] or 1))
    best = (weights.get(b"identity", 0), 0, NONE)
    for preference, coding, name in ((1, GZIP, b"gzip"), (2, ZSTD, b"zstd")):
        weight = weights.get(name, weights.get(b"*", 0))
        if available & coding and weight:
            best = max(best, (weight, preference, coding))
    return best[2], weights.get(b"identity", weights.get(b"*", 1)) == 0


def model_content(lines: list[bytes]) -> int:
    """Coding of a body with these lines of Content-Encoding."""
    members = [member.strip(b" \t").lower() for member in b",".join(lines).split(b",")]
    codings = [ALIASES.get(member, member) for member in members if member not in (b"", b"identity")]
    if not codings:
        return NONE
    return {(b"gzip",): GZIP, (b"zstd",): ZSTD}.get(tuple(codings), OTHER)


def model_chunked(data: bytes) -> tuple[int, bytes] | None:
    """(bytes of the chunked body that the data begins with, what it holds); None if there is no whole one."""
    at, found = 0, b""
    while line := CHUNK_LINE.match(data, at):
        size = int(line["size"], 16)
        at = line.end()
        if size == 0:
            end = TRAILERS.match(data, at)
            return (end.end(), found) if end else None
        if data[at + size : at + size + 2] != b"\r\n":
            return None
        found += data[at : at + size]
        at += size + 2
    return None
