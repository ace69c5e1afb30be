# Request lines (RFC 9112 section 3): the first part of _http_parser, over the same struct.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from mosec_cy._http_parser cimport HttpLimits, HttpRequest

# TOKEN_READ with state IN_NAME and `seen` behind the line, or HTTP_PARTIAL, or a refusal.
cdef int read_request_line(HttpRequest *request, const uint8_t *base, size_t n, const HttpLimits *limits) noexcept nogil

# uri-host [":" port] (RFC 3986 section 3.2.2), where the host may be empty.
cdef bint valid_authority(const uint8_t *p, size_t n, bint port_needed) noexcept nogil
