# Chunked request bodies (RFC 9112 section 7.1): finds the data in the bytes, and copies nothing. Pure.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    CHUNK_MORE = 0             # all was consumed, more is needed
    CHUNK_DATA = 1             # *span has data
    CHUNK_DONE = 2             # the body, trailers and all, has ended
    # -400: malformed. So is every further step.

cdef enum:
    # Bytes of chunk extensions that may run ahead of the data (each byte of data pays for one), and bytes of trailers.
    CHUNK_OVERHEAD = 16384

ctypedef struct ChunkedDecoder:
    uint64_t remaining         # bytes still to come of the chunk at hand
    uint32_t overhead          # bytes of extensions not yet paid for, or of trailers
    uint8_t state
    uint8_t digits             # of the chunk size

cdef void chunked_begin(ChunkedDecoder *decoder) noexcept nogil

# One step: consumes *consumed bytes, and with CHUNK_DATA says in *span and *span_n where the data lies in `data`.
cdef int chunked_step(ChunkedDecoder *decoder, const char *data, size_t n, size_t *consumed,
                      const char **span, size_t *span_n) noexcept nogil

# Bytes of data that must come next, 0 outside a chunk's data: so many can be received straight into the body,
# without a step, if chunked_took() is told. A size beyond the limit of the body is known here before its data comes.
cdef uint64_t chunked_expected(const ChunkedDecoder *decoder) noexcept nogil
cdef void chunked_took(ChunkedDecoder *decoder, uint64_t n) noexcept nogil
