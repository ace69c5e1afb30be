"""Bodies in a content coding, as clients send them, and answers as they read them."""

from __future__ import annotations

import gzip
import sys
import zlib

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB = 1 << 20


def frame(body: bytes, window_log: int = 0) -> bytes:
    """One zstd frame; `window_log`: binary logarithm of the window in bytes; 0: the library chooses."""
    if not window_log:
        return zstd.compress(body)
    # Written without its length, or a frame's window would be no larger than that.
    coder = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: window_log})
    return coder.compress(body) + coder.flush()


ENCODERS = {"gzip": gzip.compress, "zstd": frame}
DECODERS = {"gzip": gzip.decompress, "zstd": zstd.decompress}


def bombs() -> dict[str, bytes]:
    """By coding: a gigabyte of zeros in a megabyte or less. (Nobody gets as far as to see that gzip's end is wrong.)"""
    coder = zlib.compressobj(9, zlib.DEFLATED, 31)
    first = coder.compress(bytes(8 * MIB)) + coder.flush(zlib.Z_FULL_FLUSH)
    again = coder.compress(bytes(8 * MIB)) + coder.flush(zlib.Z_FULL_FLUSH)
    return {"gzip": first + again * 127 + coder.flush(), "zstd": frame(bytes(8 * MIB)) * 128}
