# HTTP/1.x request heads from bytes, incrementally (RFC 9110, RFC 9112). Pure: no clock, no descriptor, no allocator.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    HTTP_MAX_HEADERS = 100
    HTTP_UNKNOWN_LENGTH = 0xFFFFFFFFFFFFFFFF

cdef enum:                     # results > 0: bytes consumed
    HTTP_PARTIAL = 0           # more bytes are needed
    # A refusal is minus the HTTP status: -400, -414 (request line too long), -431 (head too large, too many headers),
    # -501 (transfer coding), -505 (any version but 1.0 and 1.1; so HTTP/2's preface too)

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
    BODY_NONE = 0              # no body, or one that is declared to have 0 bytes
    BODY_LENGTH = 1            # content_length bytes
    BODY_CHUNKED = 2

cdef enum HttpState:           # what the token at hand is
    AT_START = 0
    IN_METHOD
    IN_TARGET
    IN_VERSION
    IN_NAME
    IN_VALUE

cdef enum HttpFacts:           # what was seen of fields whose meaning depends on others
    SAW_HOST = 1
    SAW_CLOSE = 2
    SAW_KEEP_ALIVE = 4
    HAS_AUTHORITY = 8          # the target names the host
    SAW_REQUEST_TIMEOUT = 16   # x-request-timeout-ms, see _http_timeout

cdef enum:
    TOKEN_READ = 1             # within the parser: go on with the next token

ctypedef struct HttpLimits:
    uint32_t line              # bytes of the request line with its CRLF
    uint32_t head              # bytes of the whole head, empty lines before and after it included; < 2**31
    uint32_t headers           # header lines, <= HTTP_MAX_HEADERS

ctypedef struct HttpSpan:      # bytes [start, start + length) of the buffer that was parsed
    uint32_t start
    uint32_t length

ctypedef struct HttpHeader:
    HttpSpan name
    HttpSpan value             # without surrounding white space

ctypedef struct HttpRequest:
    # Where the next call goes on; 0 makes it begin a new head. All else is written by the parser only.
    uint32_t seen
    uint32_t mark              # start of the token at hand
    uint8_t state              # HttpState
    uint8_t facts              # HttpFacts, or-ed
    uint8_t minor              # HTTP/1.minor: 0 or 1
    HttpMethod method
    HttpBody body
    bint path_encoded          # the path has a '%'
    bint keep_alive            # as RFC 9112 section 9.3 says from version and Connection
    bint expect_continue       # HTTP/1.1 with Expect: 100-continue
    bint bad_expectation       # another expectation: 417
    uint64_t content_length    # BODY_LENGTH; else 0
    HttpSpan method_text
    HttpSpan target            # as sent
    # Still percent-encoded. Asterisk-form: "*"; absolute-form: from its path on, "/" if that is empty; CONNECT: none.
    HttpSpan path
    HttpSpan query             # after '?', length 0 if there is none
    # Headers that the engine acts on; length 0: absent. Of the codings, lists that may stand on several lines, the
    # last line that is not empty.
    HttpSpan content_type, content_encoding, accept_encoding
    HttpSpan upgrade           # HTTP/1.1 only (RFC 9110 section 7.8)
    HttpSpan host              # the target's authority if it has one, else Host (RFC 9112 section 3.2.2)
    uint32_t header_count
    HttpHeader headers[100]    # the first header_count are defined; the rest is not written, nor cleared for a new head

# The whole head or HTTP_PARTIAL or a refusal, as early as the bytes allow. Empty lines before the request line are
# skipped (RFC 9112 section 2.2). Never reads outside data[0:n]. After HTTP_PARTIAL the same *request continues, with
# the same bytes (they may have moved) and more; what was seen is not scanned again.
cdef int http_parse(HttpRequest *request, const char *data, size_t n, const HttpLimits *limits) noexcept nogil

# Bytes at the start of *request that are in use: so many are copied to put a partial head aside, where one struct
# serves many connections.
cdef size_t http_request_size(const HttpRequest *request) noexcept nogil

# Decodes a percent-encoded path into `out` (room for `n` bytes): its length, or -400 (bad escape, NUL).
cdef int http_decode_path(const char *data, size_t n, char *out) noexcept nogil
# Is `token` a member of a comma-separated list header? Letters compare without case.
cdef bint http_has_token(const char *data, size_t n, const char *token, size_t token_n) noexcept nogil
