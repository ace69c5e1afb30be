"""HTTP/1.x request heads (RFC 9110, RFC 9112): strict, incremental, without a copy or an allocation.

Strict means: what two parsers could read differently is refused (400), so that a proxy in front and this server
always agree where a request ends. The verdict depends on the bytes alone, never on how they were split.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from libc.string cimport memcpy, memset

from mosec_cy._http_request_line cimport read_request_line, valid_authority
from mosec_cy._scan cimport SCAN_TOKEN, scan_class, scan_hex, scan_same, scan_token, scan_value

cdef inline HttpSpan span_of(size_t start, size_t end) noexcept nogil:
    cdef HttpSpan span
    span.start = <uint32_t>start
    span.length = <uint32_t>(end - start)
    return span


cdef int http_parse(HttpRequest *request, const char *data, size_t n, const HttpLimits *limits) noexcept nogil:
    cdef const uint8_t *base = <const uint8_t *>data
    cdef int result
    if request.seen == 0:
        memset(request, 0, <char *>request.headers - <char *>request)
    if request.state < IN_NAME:
        result = read_request_line(request, base, n, limits)
        if result != TOKEN_READ:
            return result
    if n < limits.head:
        return read_headers(request, base, base + n, HTTP_PARTIAL, limits.headers)
    return read_headers(request, base, base + limits.head, -431, limits.headers)


cdef size_t http_request_size(const HttpRequest *request) noexcept nogil:
    # The header whose value is being read is in use, although it does not count yet.
    cdef size_t headers = request.header_count + (request.state == IN_VALUE)
    return <size_t>(<char *>request.headers - <char *>request) + headers * sizeof(HttpHeader)


cdef int read_headers(HttpRequest *r, const uint8_t *base, const uint8_t *end, int at_end,
                      uint32_t limit) noexcept nogil:
    """Header lines (RFC 9112 section 5) up to the empty line. `at_end`: what it means to run out of bytes."""
    cdef const uint8_t *line = base + r.mark
    cdef const uint8_t *p = base + r.seen
    cdef bint in_value = r.state == IN_VALUE
    cdef HttpHeader *header = r.headers + r.header_count
    cdef HttpHeader *room = r.headers + (limit if limit < HTTP_MAX_HEADERS else HTTP_MAX_HEADERS)
    cdef int result
    while True:
        if not in_value:
            p = scan_token(base, p, end)
            if p == line:
                return end_head(r, base, p, end, at_end)
            if header == room:
                return -431
            if p == end:
                break
            if p[0] != c':':
                return -400
            header.name = span_of(line - base, p - base)
            p += 1
            in_value = True
        p = scan_value(base, p, end)
        if end - p < 2:
            if p != end and p[0] != c'\r':
                return -400
            break
        # A bare CR or LF, NUL and other control characters end here.
        if p[0] != c'\r' or p[1] != c'\n':
            return -400
        set_value(header, base, p)
        result = known_header(r, base, header)
        if result < 0:
            return result
        header += 1
        r.header_count += 1
        p += 2
        line = p
        in_value = False
    r.seen = <uint32_t>(p - base)
    r.mark = <uint32_t>(line - base)
    r.state = IN_VALUE if in_value else IN_NAME
    return at_end


cdef inline void set_value(HttpHeader *header, const uint8_t *base, const uint8_t *end) noexcept nogil:
    cdef const uint8_t *start = base + header.name.start + header.name.length + 1
    while start != end and (start[0] == c' ' or start[0] == c'\t'):
        start += 1
    while start != end and ((end - 1)[0] == c' ' or (end - 1)[0] == c'\t'):
        end -= 1
    header.value = span_of(start - base, end - base)


cdef inline int end_head(HttpRequest *r, const uint8_t *base, const uint8_t *p, const uint8_t *end,
                         int at_end) noexcept nogil:
    # At the start of a line that is no field: only the empty line may stand here. Obsolete folding ends here too.
    r.seen = r.mark = <uint32_t>(p - base)
    r.state = IN_NAME
    if p == end:
        return at_end
    if p[0] != c'\r':
        return -400
    if p + 1 == end:
        return at_end
    if p[1] != c'\n' or (r.minor == 1 and not r.facts & SAW_HOST):
        return -400
    if r.body == BODY_LENGTH and r.content_length == 0:
        r.body = BODY_NONE
    # RFC 9112 section 9.3
    r.keep_alive = not r.facts & SAW_CLOSE and (r.minor == 1 or r.facts & SAW_KEEP_ALIVE)
    return <int>(p + 2 - base)


cdef inline int known_header(HttpRequest *r, const uint8_t *base, const HttpHeader *header) noexcept nogil:
    # No two of these names have the same length.
    cdef const uint8_t *name = base + header.name.start
    cdef size_t n = header.name.length
    if n == 4:
        if scan_same(name, b"host", 4):
            return on_host(r, base, header.value)
    elif n == 6:
        if scan_same(name, b"expect", 6):
            on_expect(r, base, header.value)
    elif n == 7:
        if scan_same(name, b"upgrade", 7) and r.minor == 1:
            r.upgrade = header.value
    elif n == 10:
        if scan_same(name, b"connection", 10):
            on_connection(r, base, header.value)
    elif n == 12:
        if scan_same(name, b"content-type", 12):
            r.content_type = header.value
    elif n == 14:
        if scan_same(name, b"content-length", 14):
            return on_content_length(r, base, header.value)
    elif n == 15:
        if scan_same(name, b"accept-encoding", 15) and header.value.length:
            r.accept_encoding = header.value
    elif n == 16:
        if scan_same(name, b"content-encoding", 16) and header.value.length:
            r.content_encoding = header.value
    elif n == 17:
        if scan_same(name, b"transfer-encoding", 17):
            return on_transfer_encoding(r, base, header.value)
    elif n == 20:
        if scan_same(name, b"x-request-timeout-ms", 20):
            r.facts |= SAW_REQUEST_TIMEOUT
    return TOKEN_READ


cdef int on_host(HttpRequest *r, const uint8_t *base, HttpSpan value) noexcept nogil:
    # RFC 9112 section 3.2: repeated or malformed is 400 in any version; so is missing in HTTP/1.1 (end_head)
    if r.facts & SAW_HOST or not valid_authority(base + value.start, value.length, False):
        return -400
    r.facts |= SAW_HOST
    if not r.facts & HAS_AUTHORITY:
        r.host = value
    return TOKEN_READ


cdef int on_content_length(HttpRequest *r, const uint8_t *base, HttpSpan value) noexcept nogil:
    """Digits, once, without Transfer-Encoding (RFC 9112 section 6.3); 19 of them cannot overflow."""
    cdef uint64_t length = 0
    cdef size_t i
    if r.body != BODY_NONE or value.length == 0 or value.length > 19:
        return -400
    for i in range(value.start, <size_t>value.start + value.length):
        if base[i] < c'0' or base[i] > c'9':
            return -400
        length = length * 10 + (base[i] - c'0')
    r.content_length = length
    r.body = BODY_LENGTH
    return TOKEN_READ


cdef int on_transfer_encoding(HttpRequest *r, const uint8_t *base, HttpSpan value) noexcept nogil:
    """`chunked`, once and alone. Empty members are refused, although lists elsewhere may have them: proxies differ."""
    cdef const uint8_t *p = base + value.start
    cdef const uint8_t *end = p + value.length
    # In HTTP/1.0 framing cannot be trusted (RFC 9112 section 6.1). A second line would follow `chunked`, or comes
    # with a Content-Length.
    if r.minor == 0 or r.body != BODY_NONE:
        return -400
    if value.length == 7 and scan_same(p, b"chunked", 7):
        r.body = BODY_CHUNKED
        return TOKEN_READ
    while p != end and scan_class[p[0]] & SCAN_TOKEN:
        p += 1
    cdef size_t coding = p - (base + value.start)
    # Not a coding; or `chunked` with parameters (section 7.1), or before another coding.
    if coding == 0 or (coding == 7 and scan_same(base + value.start, b"chunked", 7)):
        return -400
    while p != end and (p[0] == c' ' or p[0] == c'\t'):
        p += 1
    return -501 if p == end or p[0] == c',' or p[0] == c';' else -400


cdef void on_expect(HttpRequest *r, const uint8_t *base, HttpSpan value) noexcept nogil:
    # RFC 9110 section 10.1.1: HTTP/1.0 cannot wait for a 100
    if value.length == 12 and scan_same(base + value.start, b"100-continue", 12):
        r.expect_continue = r.minor == 1
    elif value.length != 0:
        r.bad_expectation = True


cdef void on_connection(HttpRequest *r, const uint8_t *base, HttpSpan value) noexcept nogil:
    cdef const char *list_ = <const char *>base + value.start
    if value.length == 10 and scan_same(base + value.start, b"keep-alive", 10):
        r.facts |= SAW_KEEP_ALIVE
        return
    if http_has_token(list_, value.length, b"close", 5):
        r.facts |= SAW_CLOSE
    if http_has_token(list_, value.length, b"keep-alive", 10):
        r.facts |= SAW_KEEP_ALIVE


cdef inline uint8_t lower(uint8_t c) noexcept nogil:
    return c | 0x20 if c'A' <= c <= c'Z' else c


cdef bint http_has_token(const char *data, size_t n, const char *token, size_t token_n) noexcept nogil:
    cdef size_t start = 0, stop, end, i
    while start < n:
        end = start
        while end < n and data[end] != c',':
            end += 1
        stop = end
        while start < stop and (data[start] == c' ' or data[start] == c'\t'):
            start += 1
        while start < stop and (data[stop - 1] == c' ' or data[stop - 1] == c'\t'):
            stop -= 1
        if stop - start == token_n:
            i = 0
            while i < token_n and lower(data[start + i]) == lower(token[i]):
                i += 1
            if i == token_n:
                return True
        start = end + 1
    return False


cdef int http_decode_path(const char *data, size_t n, char *out) noexcept nogil:
    cdef size_t i = 0
    cdef char *to = out
    cdef int high, low
    while i < n:
        if data[i] != c'%':
            to[0] = data[i]
            i += 1
        else:
            if n - i < 3:
                return -400
            high = scan_hex(<uint8_t>data[i + 1])
            low = scan_hex(<uint8_t>data[i + 2])
            if high < 0 or low < 0 or high + low == 0:
                return -400
            to[0] = <char>(high << 4 | low)
            i += 3
        to += 1
    return <int>(to - out)


@cython.final
cdef class RequestParser:
    """One HTTP/1.x request head at a time, from bytes; for tests and benchmarks of the C functions above.

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
        properties look into the last `data`: defined after a result > 0, and as far as it got after 0.
        """
        return self.parse_many(data, 1)

    cpdef int parse_many(self, data, Py_ssize_t times) except? -1:
        """The result of the last of `times` parses of the same bytes: what one costs without the call from Python."""
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
        """Another parser that goes on with a copy of the state in use, as a loop puts a partial head aside."""
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
        """After a partial head: the offset where the next call goes on."""
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
        """All that was found out, by the names of HttpRequest; spans as bytes."""
        cdef HttpRequest *r = &self.request
        return {
            "method": <int>r.method, "method_text": self.text(r.method_text), "target": self.text(r.target),
            "path": self.text(r.path), "query": self.text(r.query), "path_encoded": r.path_encoded, "minor": r.minor,
            "keep_alive": r.keep_alive, "expect_continue": r.expect_continue, "bad_expectation": r.bad_expectation,
            "body": <int>r.body, "content_length": r.content_length, "content_type": self.text(r.content_type),
            "content_encoding": self.text(r.content_encoding), "accept_encoding": self.text(r.accept_encoding),
            "upgrade": self.text(r.upgrade), "host": self.text(r.host),
        }


def has_token(value: bytes, token: bytes) -> bool:
    """http_has_token(), for tests."""
    return http_has_token(value, len(value), token, len(token))
