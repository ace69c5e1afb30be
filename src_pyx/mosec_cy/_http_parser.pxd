# HTTP/1.x requests from bytes, incrementally (RFC 9110, RFC 9112). Pure: no clock, no descriptor, no allocator.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    HTTP_MAX_HEADERS = 100
    HTTP_UNKNOWN_LENGTH = 0xFFFFFFFFFFFFFFFF

cdef enum:                     # results > 0: bytes consumed
    HTTP_PARTIAL = 0           # more bytes are needed
    # A refusal is minus the HTTP status: -400, -414 (request line too long), -431 (header too large or too many), -501 (transfer coding), -505

cdef enum HttpMethod:
    METHOD_OTHER = 0
    METHOD_GET
    METHOD_HEAD
    METHOD_POST
    METHOD_PUT
    METHOD_DELETE
    METHOD_OPTIONS
    METHOD_PATCH
    METHOD_CONNECT
    METHOD_TRACE

cdef enum HttpBody:
    BODY_NONE = 0              # no body
    BODY_LENGTH = 1            # content_length bytes
    BODY_CHUNKED = 2

ctypedef struct HttpLimits:
    uint32_t line              # bytes of the request line
    uint32_t head              # bytes of the whole head
    uint32_t headers           # header lines, <= HTTP_MAX_HEADERS

ctypedef struct HttpSpan:      # bytes [start, start + length) of the buffer that was parsed
    uint32_t start
    uint32_t length

ctypedef struct HttpHeader:
    HttpSpan name
    HttpSpan value             # without surrounding white space

ctypedef struct HttpRequest:
    HttpMethod method
    HttpSpan method_text
    HttpSpan target            # as sent
    HttpSpan path              # still percent-encoded; asterisk-form: "*"; absolute-form: from its path on, "/" if empty (length 0: no path in the target)
    HttpSpan query             # after '?', empty if there is none
    bint path_encoded          # the path has a '%'
    uint8_t minor              # HTTP/1.minor: 0 or 1
    bint keep_alive            # as RFC 9112 section 9.3 says from version and Connection
    bint expect_continue       # HTTP/1.1 with Expect: 100-continue
    bint bad_expectation       # another expectation: 417
    HttpBody body
    uint64_t content_length    # BODY_LENGTH; 0 for BODY_NONE
    # Headers that the engine acts on; length 0: absent. A list header that stands on several lines: the last line.
    HttpSpan content_type, content_encoding, accept_encoding, upgrade, host
    uint32_t header_count
    HttpHeader headers[100]
    # How far the bytes had been seen when the answer was HTTP_PARTIAL: nothing is scanned twice for long.
    uint32_t seen

# The whole head or HTTP_PARTIAL or a refusal, as early as the bytes allow. `request.seen` is 0 for a new head. Empty lines before the
# request line are skipped (RFC 9112 section 2.2). Never reads past data + n.
cdef int http_parse(HttpRequest *request, const char *data, size_t n, const HttpLimits *limits) noexcept nogil

# Decodes a percent-encoded path into `out` (room for `n` bytes): its length, or -400 (bad escape, NUL).
cdef int http_decode_path(const char *data, size_t n, char *out) noexcept nogil
# A token in a comma-separated list header, ASCII case-insensitively.
cdef bint http_has_token(const char *data, size_t n, const char *token, size_t token_n) noexcept nogil

cdef enum:
    CHUNK_DATA = 1             # *span has data
    CHUNK_MORE = 0             # all was consumed, more is needed
    CHUNK_DONE = 2             # the body, trailers and all, has ended
ctypedef struct ChunkedDecoder:
    uint8_t state
    uint8_t digits
    uint64_t remaining         # bytes still to come of the present chunk
    uint32_t line              # bytes seen of the present chunk line or of the trailers: bounded

cdef void chunked_begin(ChunkedDecoder *decoder) noexcept nogil
# One step: consumes *consumed bytes, and with CHUNK_DATA says in *span and *span_n where the data lies in `data`. -400: malformed.
cdef int chunked_step(ChunkedDecoder *decoder, const char *data, size_t n, size_t *consumed, const char **span, size_t *span_n) noexcept nogil
