"""Bodies in gzip and zstd: what is decoded, and what is refused before it costs much."""

from __future__ import annotations

import gzip
import random
import sys
import threading
import time
import tracemalloc

import pytest

from mosec_cy._process import codings
from mosec_cy._process.codings import BodyTooLarge
from mosec_cy.errors import DecodingError
from tests.codings import ENCODERS, MIB, bombs, frame

WORDS = b" ".join(random.Random(1).choices([b"cat", b"dog", b"bird", b"0.5", b"0.25"], k=400_000))
BODIES = {
    "nothing": b"",
    "one byte": b"x",
    "words": WORDS,
    "zeros": bytes(3 * MIB),
    "noise": random.Random(2).randbytes(300_000),
    "a piece": bytes(codings._PIECE),
}

both = pytest.mark.parametrize("coding", ["gzip", "zstd"])


@both
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_decode(coding: str, body: bytes) -> None:
    decoded = codings.decode(coding, ENCODERS[coding](body), 4 * MIB)
    assert type(decoded) is bytearray
    assert decoded == body


@both
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_encode(coding: str, body: bytes) -> None:
    coded = codings.encode(coding, memoryview(body))
    assert codings.decode(coding, coded, len(body)) == body


def test_gzip_is_read_by_others() -> None:
    assert gzip.decompress(codings.encode("gzip", WORDS)) == WORDS


@both
@pytest.mark.parametrize("parts", [[b"a", b"b"], [WORDS, b"", WORDS], [b"", b""], [bytes(MIB), b"x"] * 3])
def test_several_members_or_frames(coding: str, parts: list[bytes]) -> None:
    body = b"".join(map(ENCODERS[coding], parts))
    assert codings.decode(coding, body, 4 * MIB + len(WORDS)) == b"".join(parts)


@both
def test_the_limit_itself_is_allowed(coding: str) -> None:
    for size in (1, codings._STEP, codings._STEP + 1, 3 * MIB):
        coded = ENCODERS[coding](bytes(size))
        assert len(codings.decode(coding, coded, size)) == size
        with pytest.raises(BodyTooLarge):
            codings.decode(coding, coded, size - 1)


@both
def test_a_bomb_costs_little_more_than_the_limit(coding: str) -> None:
    limit = 4 * MIB
    bomb = bombs()[coding]
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge):
            codings.decode(coding, bomb, limit)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * limit


@both
def test_empty_parts_without_end(coding: str) -> None:
    empty = ENCODERS[coding](b"")
    limit = MIB
    most = 1 + 16 + limit // codings._PART
    assert codings.decode(coding, empty * most, limit) == b""
    with pytest.raises(DecodingError, match="too many parts"):
        codings.decode(coding, empty * (most + 1), limit)


@both
def test_cut_short(coding: str) -> None:
    coded = ENCODERS[coding](WORDS[:1000])
    for length in range(len(coded)):
        with pytest.raises(DecodingError, match=f"ends within its {coding} data"):
            codings.decode(coding, coded[:length], MIB)
    with pytest.raises(DecodingError, match="ends within"):
        codings.decode(coding, coded + coded[:-1], MIB)


@both
@pytest.mark.parametrize("garbage", [b"\0\0\0\0\0\0\0\0\0\0", b"garbage after the end", b'{"x": 1}'])
def test_garbage(coding: str, garbage: bytes) -> None:
    for body in (garbage, ENCODERS[coding](b"good") + garbage):
        with pytest.raises(DecodingError, match=f"not valid {coding}"):
            codings.decode(coding, body, MIB)


def test_a_wrong_checksum() -> None:
    coded = bytearray(gzip.compress(WORDS))
    coded[-5] ^= 1  # CRC32 and ISIZE are the last 8 bytes
    with pytest.raises(DecodingError, match="not valid gzip"):
        codings.decode("gzip", coded, 4 * MIB)


def test_a_window_beyond_what_a_sender_may_use() -> None:
    """RFC 9659: 8 MiB. The memory for it is the receiver's."""
    body = bytes(random.Random(3).randbytes(64)) * (9 * MIB // 64)
    assert codings.decode("zstd", frame(body, window_log=23), 16 * MIB) == body
    with pytest.raises(DecodingError, match="not valid zstd"):
        codings.decode("zstd", frame(body, window_log=24), 16 * MIB)


@both
@pytest.mark.parametrize("work", ["encode", "decode"])
def test_others_run_meanwhile(coding: str, work: str) -> None:
    """With no forced switches another thread runs only when this one gives the interpreter's lock away."""
    body = random.Random(4).randbytes(8 * MIB) if work == "encode" else ENCODERS[coding](bytes(8 * MIB))
    turns = 0
    done = threading.Event()

    def turn() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            time.sleep(0)

    thread = threading.Thread(target=turn)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        thread.start()
        before = turns
        attempts = 0
        while turns == before and attempts < 1000:  # the other thread may be slow to wake
            attempts += 1
            if work == "encode":
                codings.encode(coding, body)
            else:
                codings.decode(coding, body, 8 * MIB)
        after = turns
    finally:
        done.set()
        sys.setswitchinterval(interval)
        thread.join()
    assert after > before


@pytest.mark.parametrize(
    ("mime_type", "compressible"),
    [
        ("application/json", True),
        ("text/plain; charset=utf-8", True),
        ("application/octet-stream", True),
        ("application/msgpack", True),
        ("image/svg+xml", True),
        ("image/png", False),
        ("IMAGE/JPEG", False),
        ("video/mp4", False),
        ("audio/mpeg", False),
        ("font/woff2", False),
        ("application/zip", False),
        ("application/gzip; x=y", False),
        ("application/zipper", True),
        ("imagery/x", True),
        ("", True),
    ],
)
def test_types_that_are_compressed_already(mime_type: str, compressible: bool) -> None:
    assert codings.is_compressible(mime_type) is compressible
