# How long a client is willing to wait: the header `x-request-timeout-ms`. Pure.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t

from mosec_cy._http_parser cimport HttpRequest

cdef enum:
    TIMEOUT_NOT_SENT = 0
    TIMEOUT_MALFORMED = -1
    TIMEOUT_DIGITS = 18               # more are refused; as many cannot overflow

# ms, 1 or more, or one of the above. `head`: the bytes that *request was parsed from.
cdef int64_t http_request_timeout(const char *head, const HttpRequest *request) noexcept nogil
# The same, line by line: `before` is what the lines before say.
cdef int64_t timeout_add(int64_t before, const char *value, size_t n) noexcept nogil
