# Content codings of a request (RFC 9110 sections 8.4 and 12.5.3). Pure.

from libc.stddef cimport size_t
from libc.stdint cimport int16_t

from mosec_cy._http_parser cimport HttpRequest

cdef enum HttpCoding:
    CODING_NONE = 0                # no coding, or `identity`
    CODING_GZIP = 1                # `gzip`, `x-gzip`
    CODING_ZSTD = 2
    CODING_OTHER = 4               # to be refused: not known, several, or malformed

# Weights in thousandths, of all lines of Accept-Encoding so far; below 0: not named.
ctypedef struct HttpAccepted:
    int16_t gzip
    int16_t zstd
    int16_t identity
    int16_t any                    # `*`

# Content-Encoding. `head`: the bytes that *request was parsed from.
cdef HttpCoding http_content_coding(const char *head, const HttpRequest *request) noexcept nogil
# Accept-Encoding: which of `available` (codings, or-ed) the answer should have; CODING_NONE: none. *plain_refused: the
# client refuses an answer without a coding.
cdef HttpCoding http_accepted_coding(
    const char *head, const HttpRequest *request, int available, bint *plain_refused
) noexcept nogil

# The same, line by line.
cdef HttpCoding coding_add(HttpCoding before, const char *value, size_t n) noexcept nogil
cdef void accepted_begin(HttpAccepted *accepted) noexcept nogil
cdef void accepted_add(HttpAccepted *accepted, const char *value, size_t n) noexcept nogil
cdef HttpCoding accepted_choose(const HttpAccepted *accepted, int available, bint *plain_refused) noexcept nogil
