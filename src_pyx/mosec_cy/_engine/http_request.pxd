# HTTP/1.x request heads and chunked bodies from bytes, incrementally (RFC 9110, RFC 9112). Pure: no clock, no
# descriptor, no allocator.

from libc.stddef cimport size_t
from libc.stdint cimport int16_t, int64_t, uint32_t, uint64_t, uint8_t

cdef enum:
    HTTP_MAX_HEADERS = 100

cdef enum:                     # results > 0: bytes consumed
    HTTP_PARTIAL = 0           # more bytes are needed
    # A refusal is minus the HTTP status: -400, -414 (request line too long), -431 (head too large, too many headers),
    # -501 (transfer coding), -505 (any version but 1.0 and 1.1; so HTTP/2's preface too)

cdef enum HttpMethod:
    METHOD_OTHER = 0
    METHOD_GET
    METHOD_HEAD
    METHOD_POST
    METHOD_OPTIONS
    METHOD_CONNECT

cdef enum HttpBody:
    BODY_NONE = 0              # no body, or one that is declared to have 0 bytes
    BODY_LENGTH = 1            # content_length bytes
    BODY_CHUNKED = 2

cdef enum HttpState:           # which token is being read
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
    SAW_REQUEST_TIMEOUT = 16   # x-request-timeout-ms, see http_request_timeout

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
    # Where the next call continues; 0 makes it begin a new head. All other fields are written by the parser only.
    uint32_t seen
    uint32_t mark              # start of the token that is being read
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
    HttpSpan content_encoding, accept_encoding
    HttpSpan host              # the target's authority if it has one, else Host (RFC 9112 section 3.2.2)
    uint32_t header_count
    HttpHeader headers[HTTP_MAX_HEADERS]   # the first header_count; the rest is not written, nor cleared for a new head

# The whole head or HTTP_PARTIAL or a refusal, as early as the bytes allow. Empty lines before the request line are
# skipped (RFC 9112 section 2.2). Never reads outside data[0:n]. After HTTP_PARTIAL the same *request continues, with
# the same bytes (they may have moved) and more; what was seen is not scanned again.
cdef int http_parse(HttpRequest *request, const char *data, size_t n, const HttpLimits *limits) noexcept nogil

# Bytes at the start of *request that are in use. A caller with one struct for many connections copies only these to put
# a partial head aside.
cdef size_t http_request_size(const HttpRequest *request) noexcept nogil

# Decodes a percent-encoded path into `out` (room for `n` bytes): its length, or -400 (bad escape, NUL).
cdef int http_decode_path(const char *data, size_t n, char *out) noexcept nogil
# Is `token` a member of a comma-separated list header? Letters compare without case.
cdef bint http_has_token(const char *data, size_t n, const char *token, size_t token_n) noexcept nogil

# ---- chunked bodies ------------------------------------------------------------------------------
# Chunked request bodies (RFC 9112 section 7.1): finds the data in the bytes, and copies nothing. Pure.

cdef enum:
    CHUNK_MORE = 0             # all was consumed, more is needed
    CHUNK_DATA = 1             # *span has data
    CHUNK_DONE = 2             # the body, trailers and all, has ended
    # -400: malformed; every further step returns it too.

cdef enum:
    # Bytes of chunk extensions that may run ahead of the data (each byte of data pays for one), and bytes of trailers.
    CHUNK_OVERHEAD = 16384

ctypedef struct ChunkedDecoder:
    uint64_t remaining         # bytes still to come of the present chunk
    uint32_t overhead          # bytes of extensions not yet paid for, or of trailers
    uint8_t state
    uint8_t digits             # of the chunk size

cdef void chunked_begin(ChunkedDecoder *decoder) noexcept nogil

# One step: consumes *consumed bytes; with CHUNK_DATA, *span and *span_n say where the data lies in `data`.
cdef int chunked_step(ChunkedDecoder *decoder, const char *data, size_t n, size_t *consumed,
                      const char **span, size_t *span_n) noexcept nogil

# Bytes of data that must come next, 0 outside a chunk's data: so many can be received straight into the body, without
# a step, if chunked_took() is told. A size beyond the limit of the body is known here before its data comes.
cdef uint64_t chunked_expected(const ChunkedDecoder *decoder) noexcept nogil
cdef void chunked_took(ChunkedDecoder *decoder, uint64_t n) noexcept nogil

# ---- content codings -----------------------------------------------------------------------------
# Content codings of a request (RFC 9110 sections 8.4 and 12.5.3). Pure.

cdef enum HttpCoding:
    CODING_NONE = 0                # no coding, or `identity`
    CODING_GZIP = 1                # `gzip`, `x-gzip`
    CODING_ZSTD = 2
    CODING_OTHER = 4               # to be refused: unknown, several, or malformed

# Weights in thousandths, of all lines of Accept-Encoding so far; below 0: not named.
ctypedef struct HttpAccepted:
    int16_t gzip
    int16_t zstd
    int16_t identity
    int16_t any                    # `*`

# Content-Encoding. `head`: the bytes that *request was parsed from.
cdef HttpCoding http_content_coding(const char *head, const HttpRequest *request) noexcept nogil
# Accept-Encoding: which of `available` (codings, or-ed) the answer should have; CODING_NONE: none of them.
# *plain_refused: the client refuses an answer without a coding.
cdef HttpCoding http_accepted_coding(
    const char *head, const HttpRequest *request, int available, bint *plain_refused
) noexcept nogil

# The same, line by line.
cdef HttpCoding coding_add(HttpCoding before, const char *value, size_t n) noexcept nogil
cdef void accepted_begin(HttpAccepted *accepted) noexcept nogil
cdef void accepted_add(HttpAccepted *accepted, const char *value, size_t n) noexcept nogil
cdef HttpCoding accepted_choose(const HttpAccepted *accepted, int available, bint *plain_refused) noexcept nogil

# ---- deadlines of clients ------------------------------------------------------------------------
# How long a client is willing to wait: the header `x-request-timeout-ms`. Pure.

cdef enum:
    TIMEOUT_NOT_SENT = 0
    TIMEOUT_MALFORMED = -1
    TIMEOUT_DIGITS = 18               # more are refused; 18 cannot overflow

# ms, 1 or more, or one of the above. `head`: the bytes that *request was parsed from.
cdef int64_t http_request_timeout(const char *head, const HttpRequest *request) noexcept nogil
# The same, line by line: `before` is the result of the earlier lines.
cdef int64_t timeout_add(int64_t before, const char *value, size_t n) noexcept nogil
