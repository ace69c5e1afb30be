"""Request heads, chunked bodies and codings as Python objects, for tests and benchmarks: no socket and no clock."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from mosec_cy._engine.http_request cimport (
    CHUNK_DATA,
    CODING_NONE,
    CODING_OTHER,
    HTTP_MAX_HEADERS,
    HTTP_PARTIAL,
    TIMEOUT_MALFORMED,
    TIMEOUT_NOT_SENT,
    ChunkedDecoder,
    HttpAccepted,
    HttpCoding,
    HttpHeader,
    HttpLimits,
    HttpRequest,
    HttpSpan,
    accepted_add,
    accepted_begin,
    accepted_choose,
    chunked_begin,
    chunked_expected,
    chunked_step,
    chunked_took,
    coding_add,
    http_decode_path,
    http_has_token,
    http_parse,
    http_request_size,
    timeout_add,
)


cdef class RequestParser:
    """One HTTP/1.x request head at a time, from bytes; for tests and benchmarks of the C functions in http_request.pyx.

    Limits, in bytes: `line`, the request line with its CRLF; `head`, all of the head. In lines: `headers` (<= 100).
    """

    cdef HttpRequest request
    cdef HttpLimits limits
    cdef object data
    cdef bint begun

    def __init__(self, *, uint32_t line=8192, uint32_t head=65536, uint32_t headers=HTTP_MAX_HEADERS):
        if not (0 < line and 0 < head < 1 << 31 and headers <= HTTP_MAX_HEADERS):
            raise ValueError(f"limits: line and head in 1..2**31-1 bytes, headers <= {HTTP_MAX_HEADERS}")
        self.limits = HttpLimits(line, head, headers)
        self.data = b""

    def parse(self, data) -> int:
        """Parses the head at the start of `data`, any contiguous buffer of bytes.

        Returns the bytes of the head (> 0); 0: more are needed, call again with these bytes and more; < 0: refused,
        minus the HTTP status: -400, -414, -431, -501, -505. After a result other than 0 a new head begins. The
        properties read from the last `data`: defined after a result > 0, and for the part parsed so far after 0.
        """
        return self.parse_many(data, 1)

    cpdef int parse_many(self, data, Py_ssize_t times) except? -1:
        """The result of the last of `times` parses of the same bytes: measures a parse without the call from Python."""
        cdef Py_buffer view
        cdef int result
        self.data = data
        if PyBytes_CheckExact(data):
            return self.run(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), times)
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        result = self.run(<const char *>view.buf, view.len, times)
        PyBuffer_Release(&view)
        return result

    cdef int run(self, const char *data, size_t n, Py_ssize_t times) noexcept nogil:
        cdef int result = HTTP_PARTIAL
        while times > 0:
            if not self.begun:
                self.request.seen = 0
            result = http_parse(&self.request, data, n, &self.limits)
            self.begun = result == HTTP_PARTIAL
            times -= 1
        return result

    def moved(self) -> RequestParser:
        """Another parser that continues with a copy of the state in use, as http1.pyx puts a partial head aside."""
        cdef RequestParser other = RequestParser()
        memset(&other.request, 0xAA, sizeof(HttpRequest))
        memcpy(&other.request, &self.request, http_request_size(&self.request))
        other.limits = self.limits
        other.data = self.data
        other.begun = self.begun
        return other

    cdef bytes text(self, HttpSpan span):
        return bytes(memoryview(self.data)[span.start:span.start + span.length])

    @property
    def seen(self) -> int:
        """After a partial head: the offset where the next call continues."""
        return self.request.seen

    @property
    def path_decoded(self) -> bytes | None:
        """None: the path has a bad escape."""
        cdef bytes path = self.text(self.request.path)
        cdef bytearray out = bytearray(len(path))
        cdef int n = http_decode_path(path, len(path), out)
        return None if n < 0 else bytes(out[:n])

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Names as sent, and values."""
        cdef uint32_t i
        cdef HttpHeader *h = self.request.headers
        return [(self.text(h[i].name), self.text(h[i].value)) for i in range(self.request.header_count)]

    @property
    def fields(self) -> dict[str, object]:
        """All results of the parser, by the names of HttpRequest; spans as bytes."""
        cdef HttpRequest *r = &self.request
        return {
            "method": <int>r.method, "method_text": self.text(r.method_text), "target": self.text(r.target),
            "path": self.text(r.path), "query": self.text(r.query), "path_encoded": r.path_encoded, "minor": r.minor,
            "keep_alive": r.keep_alive, "expect_continue": r.expect_continue, "bad_expectation": r.bad_expectation,
            "body": <int>r.body, "content_length": r.content_length,
            "content_encoding": self.text(r.content_encoding), "accept_encoding": self.text(r.accept_encoding),
            "host": self.text(r.host),
        }


def has_token(value: bytes, token: bytes) -> bool:
    """http_has_token(), for tests."""
    return http_has_token(value, len(value), token, len(token))


cdef class ChunkedBody:
    """One chunked body, from bytes; for tests and benchmarks of the C functions in http_request.pyx."""

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


def content_coding(*values) -> int:
    """HttpCoding of these lines of Content-Encoding, any contiguous buffers of bytes."""
    cdef HttpCoding coding = CODING_NONE
    cdef Py_buffer view
    for value in values:
        PyObject_GetBuffer(value, &view, PyBUF_SIMPLE)
        if coding != CODING_OTHER:
            coding = coding_add(coding, <const char *>view.buf, view.len)
        PyBuffer_Release(&view)
    return coding


def accepted_coding(int available, *values) -> tuple[int, bool]:
    """HttpCoding of an answer to these lines of Accept-Encoding, and whether one without a coding is refused."""
    cdef HttpAccepted accepted
    cdef bint plain_refused = False
    cdef HttpCoding coding
    cdef Py_buffer view
    accepted_begin(&accepted)
    for value in values:
        PyObject_GetBuffer(value, &view, PyBUF_SIMPLE)
        accepted_add(&accepted, <const char *>view.buf, view.len)
        PyBuffer_Release(&view)
    coding = accepted_choose(&accepted, available, &plain_refused)
    return coding, plain_refused


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
