"""Chunked request bodies (RFC 9112 section 7.1), strictly: what is not in the grammar ends the body with -400.

Chunk lines are short beside the data, so that they are read byte by byte: any split is a resting place. Extensions
are validated and dropped, trailers too.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer

from mosec_cy._scan cimport SCAN_TOKEN, SCAN_VALUE, scan_class, scan_hex

cdef enum:                     # ChunkedDecoder.state: what the next byte belongs to
    IN_SIZE = 0
    SIZE_LF
    IN_DATA
    DATA_CR
    DATA_LF
    # Extensions: *( BWS ";" BWS name [ BWS "=" BWS value ] ), where the value is a token or a quoted string
    EXT_SEMICOLON              # only white space and ';' may come
    EXT_NAME_START
    EXT_NAME
    EXT_NAME_END
    EXT_VALUE_START
    EXT_VALUE
    EXT_QUOTED
    EXT_ESCAPE
    EXT_QUOTED_END
    # Trailers: header lines up to an empty one
    TRAILER_START
    TRAILER_NAME
    TRAILER_VALUE
    TRAILER_LF
    END_LF
    ENDED
    BROKEN


cdef void chunked_begin(ChunkedDecoder *decoder) noexcept nogil:
    decoder.remaining = 0
    decoder.overhead = 0
    decoder.state = IN_SIZE
    decoder.digits = 0


cdef int chunked_step(ChunkedDecoder *decoder, const char *data, size_t n, size_t *consumed,
                      const char **span, size_t *span_n) noexcept nogil:
    cdef size_t i = 0
    cdef size_t take
    while decoder.state < ENDED and i < n:
        if decoder.state == IN_DATA:
            take = n - i if n - i < decoder.remaining else <size_t>decoder.remaining
            span[0] = data + i
            span_n[0] = take
            consumed[0] = i + take
            chunked_took(decoder, take)
            return CHUNK_DATA
        decoder.state = next_state(decoder, <uint8_t>data[i])
        i += 1
    consumed[0] = i
    span[0] = NULL
    span_n[0] = 0
    if decoder.state == BROKEN:
        return -400
    return CHUNK_DONE if decoder.state == ENDED else CHUNK_MORE


cdef uint64_t chunked_expected(const ChunkedDecoder *decoder) noexcept nogil:
    return decoder.remaining if decoder.state == IN_DATA else 0


cdef void chunked_took(ChunkedDecoder *decoder, uint64_t n) noexcept nogil:
    decoder.remaining -= n
    decoder.overhead -= <uint32_t>n if n < decoder.overhead else decoder.overhead
    if decoder.remaining == 0:
        decoder.state = DATA_CR


cdef uint8_t next_state(ChunkedDecoder *decoder, uint8_t c) noexcept nogil:
    cdef uint8_t state = decoder.state
    if state == IN_SIZE:
        return next_of_size(decoder, c)
    if state == SIZE_LF:
        return end_of_line(decoder, c)
    if state == DATA_CR:
        return DATA_LF if c == c'\r' else BROKEN
    if state == DATA_LF:
        decoder.digits = 0
        return IN_SIZE if c == c'\n' else BROKEN
    decoder.overhead += 1
    if decoder.overhead > CHUNK_OVERHEAD:
        return BROKEN
    if state < TRAILER_START:
        return next_of_extension(state, c)
    return next_of_trailer(state, c)


cdef inline uint8_t next_of_size(ChunkedDecoder *decoder, uint8_t c) noexcept nogil:
    cdef int digit = scan_hex(c)
    if digit >= 0:
        # 16 digits are 64 bits: no more, even if they are zeros, so nothing overflows.
        if decoder.digits == 16:
            return BROKEN
        decoder.digits += 1
        decoder.remaining = decoder.remaining << 4 | <uint64_t>digit
        return IN_SIZE
    if decoder.digits == 0:
        return BROKEN
    return after_item(c)


cdef inline uint8_t end_of_line(ChunkedDecoder *decoder, uint8_t c) noexcept nogil:
    if c != c'\n':
        return BROKEN
    if decoder.remaining != 0:
        return IN_DATA
    decoder.overhead = 0       # trailers have a bound of their own
    return TRAILER_START


cdef inline bint is_blank(uint8_t c) noexcept nogil:
    return c == c' ' or c == c'\t'


cdef inline uint8_t after_item(uint8_t c) noexcept nogil:
    """Behind the size or a whole extension. White space must lead to a ';': before the CRLF it is an error."""
    if c == c'\r':
        return SIZE_LF
    if c == c';':
        return EXT_NAME_START
    return EXT_SEMICOLON if is_blank(c) else BROKEN


cdef uint8_t next_of_extension(uint8_t state, uint8_t c) noexcept nogil:
    cdef bint token = (scan_class[c] & SCAN_TOKEN) != 0
    if state == EXT_QUOTED:
        if c == c'"':
            return EXT_QUOTED_END
        if c == c'\\':
            return EXT_ESCAPE
        return EXT_QUOTED if scan_class[c] & SCAN_VALUE else BROKEN
    if state == EXT_ESCAPE:
        return EXT_QUOTED if scan_class[c] & SCAN_VALUE else BROKEN
    if state == EXT_NAME and token or state == EXT_VALUE and token:
        return state
    if state == EXT_NAME_START:
        return EXT_NAME if token else EXT_NAME_START if is_blank(c) else BROKEN
    if state == EXT_VALUE_START:
        if c == c'"':
            return EXT_QUOTED
        return EXT_VALUE if token else EXT_VALUE_START if is_blank(c) else BROKEN
    if state == EXT_NAME or state == EXT_NAME_END:
        if c == c'=':
            return EXT_VALUE_START
        if is_blank(c):
            return EXT_NAME_END
    if state == EXT_NAME_END or state == EXT_SEMICOLON:
        return EXT_NAME_START if c == c';' else state if is_blank(c) else BROKEN
    return after_item(c)       # behind a name, a value, a quoted string


cdef uint8_t next_of_trailer(uint8_t state, uint8_t c) noexcept nogil:
    if state == TRAILER_VALUE:
        if scan_class[c] & SCAN_VALUE:
            return TRAILER_VALUE
        return TRAILER_LF if c == c'\r' else BROKEN
    if state == TRAILER_LF:
        return TRAILER_START if c == c'\n' else BROKEN
    if state == END_LF:
        return ENDED if c == c'\n' else BROKEN
    if scan_class[c] & SCAN_TOKEN:
        return TRAILER_NAME
    if state == TRAILER_START:
        return END_LF if c == c'\r' else BROKEN
    return TRAILER_VALUE if c == c':' else BROKEN


cdef class ChunkedBody:
    """One chunked body, from bytes; for tests and benchmarks of the C functions above."""

    cdef ChunkedDecoder decoder

    def __init__(self):
        chunked_begin(&self.decoder)

    def step(self, data) -> tuple[int, int, bytes]:
        """One step into `data`, any contiguous buffer: (result, bytes consumed, bytes of the body that were found).

        Results: 0, all was consumed and more is needed; 1, there are bytes of the body; 2, the body has ended;
        -400, malformed.
        """
        cdef Py_buffer view
        cdef size_t consumed, n
        cdef const char *span
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            result = chunked_step(&self.decoder, <const char *>view.buf, view.len, &consumed, &span, &n)
            return result, consumed, span[:n] if result == CHUNK_DATA else b""
        finally:
            PyBuffer_Release(&view)

    @property
    def expected(self) -> int:
        """Bytes of data that must come next."""
        return chunked_expected(&self.decoder)

    def took(self, uint64_t n):
        """Bytes of data that were received past the decoder; ValueError beyond `expected`."""
        if n > chunked_expected(&self.decoder):
            raise ValueError(f"{n} bytes of data, where {self.expected} are expected")
        chunked_took(&self.decoder, n)
