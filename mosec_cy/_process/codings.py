"""Content codings of bodies (RFC 9110 section 8.4): gzip (RFC 1952) and zstd (RFC 8878).

A request's body is decoded within a limit, so that a few kilobytes cannot become gigabytes. Both libraries work
without the GIL.
"""

from __future__ import annotations

import functools
import sys
import zlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mosec_cy.errors import DecodingError, MosecError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mosec_cy._engine.worker import Item

GZIP, ZSTD = "gzip", "zstd"

# Answers are made while a client waits, and once each: the higher levels of gzip take four to seven times as long for
# a tenth less, those of zstd twice to five times as long for nothing (JSON of records, of floats, and prose).
_LEVEL = 1
_SMALL = 1024  # bytes; an answer below is one packet with and without a coding
_PIECE = 1 << 14  # bytes of a coded body that are looked at together
_STEP = 1 << 20  # bytes that they are decoded to before the limit is looked at
_PART = 1 << 12  # bytes of the limit for each further member or frame: empty ones cost much time and no size
_GZIP_WINDOW = 31  # with gzip's header and trailer; 32 KiB
_ZSTD_WINDOW_LOG = 23  # RFC 9659 section 3: a sender's window has at most 8 MiB

_COMPRESSED_KINDS = ("image/", "video/", "audio/", "font/")
_COMPRESSED_TYPES = frozenset(
    f"application/{name}"
    for name in ("gzip", "x-gzip", "pdf", "vnd.rar", "x-7z-compressed", "x-bzip2", "x-xz", "zip", "zstd")
)
_COMPRESSIBLE_TYPES = frozenset(("image/bmp", "image/svg+xml"))


class BodyTooLarge(MosecError):
    """A body is larger than `--max-request-size` once decoded: 413, with this text alone."""

    code = 413
    msg = "request body is too large"


def available() -> tuple[str, ...]:
    """The codings that this interpreter can do; zstd from Python 3.14 on, or with the extra `zstd`."""
    return (GZIP, ZSTD) if _zstd() is not None else (GZIP,)


def describe() -> str:
    """What is available, and what is missing for more."""
    return ", ".join(available()) + ("" if _zstd() is not None else " (zstd needs mosec_cy[zstd])")


def decode(coding: str, body: Any, limit: int) -> bytearray:
    """Decode a body; it may be several gzip members (RFC 1952 section 2.2) or zstd frames (RFC 8878 section 3).

    Args:
        coding: one of `available()`.
        body: bytes-like.
        limit: most bytes of the result.

    Raises:
        BodyTooLarge: the result would be larger; little more than `limit` bytes were made.
        DecodingError: the body is malformed, is cut short, goes on with something else, or has more members or
            frames than one for each 4 KiB of `limit`.
    """
    try:
        with memoryview(body) as view:
            return _decode(_decompressor(coding), view, limit)
    except _Truncated:
        raise DecodingError(f"the body ends within its {coding} data") from None
    except _library_errors(coding) as error:
        raise DecodingError(f"the body is not valid {coding}: {error}") from error


def encode(coding: str, body: Any) -> bytes:
    """Encode a bytes-like body in one of `available()`."""
    if coding == ZSTD:
        return _need_zstd().compress(body, _LEVEL)
    encoder = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
    return b"".join((encoder.compress(body), encoder.flush()))


def encode_answer(item: Item, outputs: list[Any], compressible: bool) -> str:
    """Put the coded form of `outputs[0]` into its place, if the client wants that and it is worth while.

    Returns the coding, "" if the answer stays as it is: with a type that is compressed already, small, or not made
    smaller. A client that refuses plain answers gets them coded nevertheless.
    """
    coding: str = item.answer_coding
    if not coding or not (compressible or item.refuses_plain):
        return ""
    with memoryview(outputs[0]) as plain:
        if plain.nbytes < _SMALL and not item.refuses_plain:
            return ""
        coded = encode(coding, plain)
        if len(coded) >= plain.nbytes and not item.refuses_plain:
            return ""
    outputs[0] = coded
    return coding


def is_compressible(mime_type: str) -> bool:
    """False for types whose content is compressed already, such as most images."""
    essence = mime_type.partition(";")[0].strip().lower()
    if essence in _COMPRESSIBLE_TYPES:
        return True
    return not essence.startswith(_COMPRESSED_KINDS) and essence not in _COMPRESSED_TYPES


class _Truncated(Exception):
    """The input ended before its last member or frame did."""


class _GzipMember:
    """Decompressor of one gzip member, with the interface that other modules of the standard library share."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(_GZIP_WINDOW)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: memoryview | bytes, max_length: int) -> bytes:
        """As `bz2.BZ2Decompressor.decompress`."""
        decoded = self._inner.decompress(data or self._inner.unconsumed_tail, max_length)
        # At its limit zlib may hold output for which it needs no more input.
        self.needs_input = not self._inner.unconsumed_tail and len(decoded) < max_length
        return decoded


def _decode(new_decompressor: Callable[[], Any], body: memoryview, limit: int) -> bytearray:
    decoded = bytearray()
    current = new_decompressor()
    more_parts = 16 + limit // _PART
    for start in range(0, len(body), _PIECE):
        piece: memoryview | bytes = body[start : start + _PIECE]
        while True:
            if current.eof:
                if more_parts == 0:
                    raise DecodingError("the body is coded in too many parts: use one gzip member or zstd frame")
                more_parts -= 1
                current = new_decompressor()
            decoded += current.decompress(piece, min(_STEP, limit - len(decoded) + 1))
            if len(decoded) > limit:
                raise BodyTooLarge
            piece = current.unused_data if current.eof else b""
            if not piece and (current.eof or current.needs_input):
                break
    if not current.eof:
        raise _Truncated
    return decoded


def _decompressor(coding: str) -> Callable[[], Any]:
    if coding != ZSTD:
        return _GzipMember
    zstd = _need_zstd()
    return functools.partial(
        zstd.ZstdDecompressor, options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    )


def _library_errors(coding: str) -> type[Exception]:
    return _need_zstd().ZstdError if coding == ZSTD else zlib.error


def _need_zstd() -> ModuleType:
    zstd = _zstd()
    assert zstd is not None, "core lets only those codings through that are available"
    return zstd


@functools.cache
def _zstd() -> ModuleType | None:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        return None
    return zstd
