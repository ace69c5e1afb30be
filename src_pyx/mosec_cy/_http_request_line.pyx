"""Request lines (RFC 9112 section 3): method, target in its four forms, version."""

from libc.stdint cimport uint32_t
from libc.string cimport memchr, memcmp

from mosec_cy._http_parser cimport (
    AT_START, HAS_AUTHORITY, HTTP_PARTIAL, IN_METHOD, IN_NAME, IN_TARGET, IN_VERSION, HttpLimits, HttpMethod,
    HttpRequest, HttpSpan, METHOD_CONNECT, METHOD_DELETE, METHOD_GET, METHOD_HEAD, METHOD_OPTIONS, METHOD_OTHER,
    METHOD_PATCH, METHOD_POST, METHOD_PUT, METHOD_TRACE, TOKEN_READ,
)
from mosec_cy._scan cimport (
    SCAN_HEX, SCAN_HOST, SCAN_TOKEN, scan_class, scan_hex, scan_same, scan_target,
)

# The bytes that may be looked at, and what it means to come to their end: HTTP_PARTIAL, or a limit's refusal.
cdef struct Window:
    const uint8_t *base
    const uint8_t *end
    int at_end


cdef inline Window window_of(const uint8_t *base, size_t n, size_t limit, int refusal) noexcept nogil:
    cdef Window w
    w.base = base
    w.end = base + (n if n < limit else limit)
    w.at_end = refusal if n >= limit else HTTP_PARTIAL
    return w


cdef inline HttpSpan span_of(size_t start, size_t end) noexcept nogil:
    cdef HttpSpan span
    span.start = <uint32_t>start
    span.length = <uint32_t>(end - start)
    return span


cdef int read_request_line(HttpRequest *r, const uint8_t *base, size_t n, const HttpLimits *limits) noexcept nogil:
    cdef Window w = window_of(base, n, limits.head, -431)
    cdef int result
    if r.state == AT_START:
        result = skip_empty_lines(r, &w)
        if result != TOKEN_READ:
            return result
    if <size_t>r.method_text.start + limits.line <= limits.head:
        w = window_of(base, n, r.method_text.start + limits.line, -414)
    if r.state == IN_METHOD:
        result = read_method(r, &w)
        if result != TOKEN_READ:
            return result
    if r.state == IN_TARGET:
        result = read_target(r, &w)
        if result != TOKEN_READ:
            return result
    result = read_version(r, &w)
    if result == TOKEN_READ:
        result = split_target(r, base)
    return result


cdef inline int skip_empty_lines(HttpRequest *r, const Window *w) noexcept nogil:
    cdef const uint8_t *p = w.base + r.seen
    while p != w.end and p[0] == c'\r':
        if p + 1 == w.end:
            r.seen = <uint32_t>(p - w.base)
            return w.at_end
        if p[1] != c'\n':
            return -400
        p += 2
    r.seen = r.mark = r.method_text.start = <uint32_t>(p - w.base)
    if p == w.end:
        return w.at_end
    r.state = IN_METHOD
    return TOKEN_READ


cdef inline int read_method(HttpRequest *r, const Window *w) noexcept nogil:
    cdef const uint8_t *p = w.base + r.seen
    # Methods are short: a loop over bytes beats a block.
    while p != w.end and scan_class[p[0]] & SCAN_TOKEN:
        p += 1
    r.seen = <uint32_t>(p - w.base)
    if p == w.end:
        return w.at_end
    if p[0] != c' ' or r.seen == r.mark:
        return -400
    r.method_text = span_of(r.mark, r.seen)
    r.method = method_of(w.base + r.mark, r.method_text.length)
    r.seen += 1
    r.mark = r.seen
    r.state = IN_TARGET
    return TOKEN_READ


cdef HttpMethod method_of(const uint8_t *p, size_t n) noexcept nogil:
    # Methods are case-sensitive (RFC 9110 section 9.1).
    if n == 3:
        if memcmp(p, b"GET", 3) == 0:
            return METHOD_GET
        if memcmp(p, b"PUT", 3) == 0:
            return METHOD_PUT
    elif n == 4:
        if memcmp(p, b"POST", 4) == 0:
            return METHOD_POST
        if memcmp(p, b"HEAD", 4) == 0:
            return METHOD_HEAD
    elif n == 5:
        if memcmp(p, b"PATCH", 5) == 0:
            return METHOD_PATCH
        if memcmp(p, b"TRACE", 5) == 0:
            return METHOD_TRACE
    elif n == 6 and memcmp(p, b"DELETE", 6) == 0:
        return METHOD_DELETE
    elif n == 7:
        if memcmp(p, b"OPTIONS", 7) == 0:
            return METHOD_OPTIONS
        if memcmp(p, b"CONNECT", 7) == 0:
            return METHOD_CONNECT
    return METHOD_OTHER


cdef inline int read_target(HttpRequest *r, const Window *w) noexcept nogil:
    cdef const uint8_t *p = w.base + r.seen
    while True:
        p = scan_target(w.base, p, w.end)
        r.seen = <uint32_t>(p - w.base)
        if p == w.end:
            return w.at_end
        if p[0] == c'?':
            if r.query.start == 0:
                r.query.start = r.seen + 1
        elif p[0] == c'%':
            if r.query.start == 0:
                r.path_encoded = True
        else:
            break
        p += 1
    if p[0] != c' ' or r.seen == r.mark:
        return -400
    r.target = span_of(r.mark, r.seen)
    r.seen += 1
    r.mark = r.seen
    r.state = IN_VERSION
    return TOKEN_READ


cdef inline int read_version(HttpRequest *r, const Window *w) noexcept nogil:
    cdef const uint8_t *p = w.base + r.mark
    if w.end - p < 10 or memcmp(p, b"HTTP/1.1\r\n", 10) != 0:
        if w.end - p < 10 or memcmp(p, b"HTTP/1.0\r\n", 10) != 0:
            r.seen = <uint32_t>(w.end - w.base)
            return odd_version(p, w)
        r.minor = 0
    else:
        r.minor = 1
    r.seen = r.mark = r.mark + 10
    r.state = IN_NAME
    return TOKEN_READ


cdef int odd_version(const uint8_t *p, const Window *w) noexcept nogil:
    # A digit stands where the pattern has '0'. A version that is well-formed but unknown is told as soon as it is read.
    cdef const char *pattern = b"HTTP/0.0\r\n"
    cdef size_t i = 0
    while i < 10 and p + i != w.end:
        if pattern[i] == c'0':
            if p[i] < c'0' or p[i] > c'9':
                return -400
        elif p[i] != <uint8_t>pattern[i]:
            return -400
        i += 1
        if i == 8 and (p[5] != c'1' or p[7] > c'1'):
            return -505
    return w.at_end


cdef inline int split_target(HttpRequest *r, const uint8_t *base) noexcept nogil:
    cdef size_t start = r.target.start
    cdef size_t end = start + r.target.length
    if r.query.start:
        r.query.length = <uint32_t>(end - r.query.start)
        end = r.query.start - 1
    if base[start] == c'/' and r.method != METHOD_CONNECT:
        r.path = span_of(start, end)
        return TOKEN_READ
    return split_odd_target(r, base, start, end)


cdef int split_odd_target(HttpRequest *r, const uint8_t *base, size_t start, size_t path_end) noexcept nogil:
    cdef size_t authority
    cdef const uint8_t *slash
    if r.method == METHOD_CONNECT:
        # authority-form, which has a port (RFC 9112 section 3.2.3)
        r.host = r.target
        r.facts |= HAS_AUTHORITY
        return TOKEN_READ if valid_authority(base + start, r.target.length, True) else -400
    if base[start] == c'*':
        r.path = r.target
        return TOKEN_READ if r.target.length == 1 and r.method == METHOD_OPTIONS else -400
    if path_end - start >= 7 and scan_same(base + start, b"http://", 7):
        authority = start + 7
    elif path_end - start >= 8 and scan_same(base + start, b"https://", 8):
        authority = start + 8
    else:
        return -400
    slash = <const uint8_t *>memchr(base + authority, c'/', path_end - authority)
    if slash != NULL:
        r.path = span_of(slash - base, path_end)
    else:
        r.path = span_of(authority - 1, authority)    # an empty path is "/": the one before the authority does
        slash = base + path_end
    r.path_encoded = memchr(base + r.path.start, c'%', r.path.length) != NULL
    r.host = span_of(authority, slash - base)
    r.facts |= HAS_AUTHORITY
    # An http URI without a host is invalid (RFC 9110 section 4.2.1), user information too (section 4.2.4).
    if r.host.length == 0 or base[authority] == c':':
        return -400
    return TOKEN_READ if valid_authority(base + authority, r.host.length, False) else -400


cdef bint valid_authority(const uint8_t *p, size_t n, bint port_needed) noexcept nogil:
    """uri-host [":" port] (RFC 3986 section 3.2.2), where the host may be empty."""
    cdef const uint8_t *end = p + n
    cdef const uint8_t *literal
    if p != end and p[0] == c'[':
        p += 1
        literal = p
        while p != end and (scan_class[p[0]] & SCAN_HEX or p[0] == c':' or p[0] == c'.'):
            p += 1
        if p == end or p == literal or p[0] != c']':
            return False
        p += 1
    else:
        while p != end and scan_class[p[0]] & SCAN_HOST:
            if p[0] == c'%' and (end - p < 3 or scan_hex(p[1]) < 0 or scan_hex(p[2]) < 0):
                return False
            p += 1
    if p == end:
        return not port_needed
    if p[0] != c':' or (port_needed and (p == end - n or p + 1 == end)):
        return False
    p += 1
    while p != end and c'0' <= p[0] <= c'9':
        p += 1
    return p == end
