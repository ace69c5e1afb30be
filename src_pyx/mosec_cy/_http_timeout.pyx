"""How long a client is willing to wait, from its header `x-request-timeout-ms`.

A whole number of milliseconds from 1 on, in digits. 0 is refused: some mean "no limit" by it, others "over already".
Lines that repeat it must agree: which of two a proxy and this server believe must not matter.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t

from mosec_cy._http_parser cimport SAW_REQUEST_TIMEOUT, HttpHeader
from mosec_cy._scan cimport scan_same


cdef int64_t timeout_add(int64_t before, const char *value, size_t n) noexcept nogil:
    cdef int64_t timeout = 0
    cdef size_t i
    if n > TIMEOUT_DIGITS:
        return TIMEOUT_MALFORMED
    for i in range(n):
        if value[i] < c'0' or value[i] > c'9':
            return TIMEOUT_MALFORMED
        timeout = timeout * 10 + (value[i] - c'0')
    if timeout == 0 or before != TIMEOUT_NOT_SENT and before != timeout:
        return TIMEOUT_MALFORMED
    return timeout


cdef int64_t http_request_timeout(const char *head, const HttpRequest *request) noexcept nogil:
    cdef int64_t timeout = TIMEOUT_NOT_SENT
    cdef const HttpHeader *header
    cdef const uint8_t *name
    cdef uint32_t i
    if not request.facts & SAW_REQUEST_TIMEOUT:
        return TIMEOUT_NOT_SENT
    for i in range(request.header_count):
        header = &request.headers[i]
        name = <const uint8_t *>head + header.name.start
        if header.name.length == 20 and scan_same(name, b"x-request-timeout-ms", 20):
            timeout = timeout_add(timeout, head + header.value.start, header.value.length)
            if timeout == TIMEOUT_MALFORMED:
                break
    return timeout


def request_timeout(*values) -> int:
    """ms of these lines, any contiguous buffers of bytes; 0: there are none; -1: malformed. For tests."""
    cdef int64_t timeout = TIMEOUT_NOT_SENT
    cdef Py_buffer view
    for value in values:
        PyObject_GetBuffer(value, &view, PyBUF_SIMPLE)
        if timeout != TIMEOUT_MALFORMED:
            timeout = timeout_add(timeout, <const char *>view.buf, view.len)
        PyBuffer_Release(&view)
    return timeout
