"""HTTP/1.x request heads, chunked bodies and codings (RFC 9110, RFC 9112): strict, incremental, without an allocation.

Strict means: a head that two parsers could read differently is refused (400), so that a proxy in front and this server
always agree where a request ends. The result depends on the bytes alone, never on how they were split.
"""

from libc.string cimport memchr, memcmp, memset

from mosec_cy._engine.scan cimport (
    SCAN_HEX,
    SCAN_HOST,
    SCAN_TOKEN,
    SCAN_VALUE,
    scan_class,
    scan_hex,
    scan_same,
    scan_target,
    scan_token,
    scan_value,
)

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
    # The header whose value is being read is in use, although it is not yet counted.
    cdef size_t headers = request.header_count + (request.state == IN_VALUE)
    return <size_t>(<char *>request.headers - <char *>request) + headers * sizeof(HttpHeader)


cdef int read_headers(HttpRequest *r, const uint8_t *base, const uint8_t *end, int at_end,
                      uint32_t limit) noexcept nogil:
    """Header lines (RFC 9112 section 5) up to the empty line. `at_end`: the result when the bytes run out."""
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
    # At the start of a line that is no field, only the empty line is valid. Obsolete folding is refused here too.
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
    elif n == 10:
        if scan_same(name, b"connection", 10):
            on_connection(r, base, header.value)
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
    # RFC 9112 section 3.2: repeated or malformed is 400 in any version; so is missing in HTTP/1.1 (end_head).
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
    # RFC 9110 section 10.1.1: HTTP/1.0 cannot wait for a 100.
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


# ---- the request line ----------------------------------------------------------------------------

# Request lines (RFC 9112 section 3): method, target in its four forms, version.

# The bytes that may be read, and the result when they run out: HTTP_PARTIAL, or a limit's refusal.
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


cdef int read_request_line(HttpRequest *r, const uint8_t *base, size_t n, const HttpLimits *limits) noexcept nogil:
    # Returns TOKEN_READ with state IN_NAME and `seen` behind the line, or HTTP_PARTIAL, or a refusal.
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
    elif n == 4:
        if memcmp(p, b"POST", 4) == 0:
            return METHOD_POST
        if memcmp(p, b"HEAD", 4) == 0:
            return METHOD_HEAD
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
    # A digit stands where the pattern has '0'. A well-formed but unknown version is refused as soon as it is read.
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
        r.path = span_of(authority - 1, authority)    # an empty path is "/": that before the authority
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


# ---- chunked bodies ------------------------------------------------------------------------------

# Decodes chunked bodies (RFC 9112 section 7.1) strictly: what is not in the grammar ends the body with -400.
#
# Chunk lines are short beside the data. So they are read byte by byte, and the bytes may be split anywhere. Extensions
# and trailers are validated and dropped.

cdef enum:                     # ChunkedDecoder.state: what the next byte belongs to
    IN_SIZE = 0
    SIZE_LF
    IN_DATA
    DATA_CR
    DATA_LF
    # Extensions: *( BWS ";" BWS name [ BWS "=" BWS value ] ), where the value is a token or a quoted string
    EXT_SEMICOLON              # only white space and ';' may come
    EXT_NAME_START
    EXT_NAME
    EXT_NAME_END
    EXT_VALUE_START
    EXT_VALUE
    EXT_QUOTED
    EXT_ESCAPE
    EXT_QUOTED_END
    # Trailers: header lines up to an empty one
    TRAILER_START
    TRAILER_NAME
    TRAILER_VALUE
    TRAILER_LF
    END_LF
    ENDED
    BROKEN


cdef void chunked_begin(ChunkedDecoder *decoder) noexcept nogil:
    decoder.remaining = 0
    decoder.overhead = 0
    decoder.state = IN_SIZE
    decoder.digits = 0


cdef int chunked_step(ChunkedDecoder *decoder, const char *data, size_t n, size_t *consumed,
                      const char **span, size_t *span_n) noexcept nogil:
    cdef size_t i = 0
    cdef size_t take
    while decoder.state < ENDED and i < n:
        if decoder.state == IN_DATA:
            take = n - i if n - i < decoder.remaining else <size_t>decoder.remaining
            span[0] = data + i
            span_n[0] = take
            consumed[0] = i + take
            chunked_took(decoder, take)
            return CHUNK_DATA
        decoder.state = next_state(decoder, <uint8_t>data[i])
        i += 1
    consumed[0] = i
    span[0] = NULL
    span_n[0] = 0
    if decoder.state == BROKEN:
        return -400
    return CHUNK_DONE if decoder.state == ENDED else CHUNK_MORE


cdef uint64_t chunked_expected(const ChunkedDecoder *decoder) noexcept nogil:
    return decoder.remaining if decoder.state == IN_DATA else 0


cdef void chunked_took(ChunkedDecoder *decoder, uint64_t n) noexcept nogil:
    decoder.remaining -= n
    decoder.overhead -= <uint32_t>n if n < decoder.overhead else decoder.overhead
    if decoder.remaining == 0:
        decoder.state = DATA_CR


cdef uint8_t next_state(ChunkedDecoder *decoder, uint8_t c) noexcept nogil:
    cdef uint8_t state = decoder.state
    if state == IN_SIZE:
        return next_of_size(decoder, c)
    if state == SIZE_LF:
        return end_of_line(decoder, c)
    if state == DATA_CR:
        return DATA_LF if c == c'\r' else BROKEN
    if state == DATA_LF:
        decoder.digits = 0
        return IN_SIZE if c == c'\n' else BROKEN
    decoder.overhead += 1
    if decoder.overhead > CHUNK_OVERHEAD:
        return BROKEN
    if state < TRAILER_START:
        return next_of_extension(state, c)
    return next_of_trailer(state, c)


cdef inline uint8_t next_of_size(ChunkedDecoder *decoder, uint8_t c) noexcept nogil:
    cdef int digit = scan_hex(c)
    if digit >= 0:
        # 16 digits are 64 bits: no more, even if they are zeros, so nothing overflows.
        if decoder.digits == 16:
            return BROKEN
        decoder.digits += 1
        decoder.remaining = decoder.remaining << 4 | <uint64_t>digit
        return IN_SIZE
    if decoder.digits == 0:
        return BROKEN
    return after_item(c)


cdef inline uint8_t end_of_line(ChunkedDecoder *decoder, uint8_t c) noexcept nogil:
    if c != c'\n':
        return BROKEN
    if decoder.remaining != 0:
        return IN_DATA
    decoder.overhead = 0       # trailers have a limit of their own
    return TRAILER_START


cdef inline bint is_blank(uint8_t c) noexcept nogil:
    return c == c' ' or c == c'\t'


cdef inline uint8_t after_item(uint8_t c) noexcept nogil:
    """After the size or a whole extension. White space must lead to a ';': before the CRLF it is an error."""
    if c == c'\r':
        return SIZE_LF
    if c == c';':
        return EXT_NAME_START
    return EXT_SEMICOLON if is_blank(c) else BROKEN


cdef uint8_t next_of_extension(uint8_t state, uint8_t c) noexcept nogil:
    cdef bint token = (scan_class[c] & SCAN_TOKEN) != 0
    if state == EXT_QUOTED:
        if c == c'"':
            return EXT_QUOTED_END
        if c == c'\\':
            return EXT_ESCAPE
        return EXT_QUOTED if scan_class[c] & SCAN_VALUE else BROKEN
    if state == EXT_ESCAPE:
        return EXT_QUOTED if scan_class[c] & SCAN_VALUE else BROKEN
    if state == EXT_NAME and token or state == EXT_VALUE and token:
        return state
    if state == EXT_NAME_START:
        return EXT_NAME if token else EXT_NAME_START if is_blank(c) else BROKEN
    if state == EXT_VALUE_START:
        if c == c'"':
            return EXT_QUOTED
        return EXT_VALUE if token else EXT_VALUE_START if is_blank(c) else BROKEN
    if state == EXT_NAME or state == EXT_NAME_END:
        if c == c'=':
            return EXT_VALUE_START
        if is_blank(c):
            return EXT_NAME_END
    if state == EXT_NAME_END or state == EXT_SEMICOLON:
        return EXT_NAME_START if c == c';' else state if is_blank(c) else BROKEN
    return after_item(c)       # after a name, a value, a quoted string


cdef uint8_t next_of_trailer(uint8_t state, uint8_t c) noexcept nogil:
    if state == TRAILER_VALUE:
        if scan_class[c] & SCAN_VALUE:
            return TRAILER_VALUE
        return TRAILER_LF if c == c'\r' else BROKEN
    if state == TRAILER_LF:
        return TRAILER_START if c == c'\n' else BROKEN
    if state == END_LF:
        return ENDED if c == c'\n' else BROKEN
    if scan_class[c] & SCAN_TOKEN:
        return TRAILER_NAME
    if state == TRAILER_START:
        return END_LF if c == c'\r' else BROKEN
    return TRAILER_VALUE if c == c':' else BROKEN


# ---- content codings -----------------------------------------------------------------------------

# Reads the coding of a request's body and chooses that of its answer (RFC 9110 sections 8.4 and 12.5.3).
#
# A malformed member of Accept-Encoding counts as not sent: the header states preferences, so a request is not refused
# for it. If a coding is named several times the lowest weight counts: a coding that is refused once is not sent.

cdef enum:
    NOT_NAMED = -1
    MALFORMED = -1
    WEIGHT_ONE = 1000


cdef HttpCoding _coding_of(const uint8_t *name, size_t n) noexcept nogil:
    # Coding names have no case (RFC 9110 section 8.4.1); x-gzip is gzip (section 8.4.1.3).
    if n == 4 and scan_same(name, b"gzip", 4) or n == 6 and scan_same(name, b"x-gzip", 6):
        return CODING_GZIP
    if n == 4 and scan_same(name, b"zstd", 4):
        return CODING_ZSTD
    if n == 8 and scan_same(name, b"identity", 8):
        return CODING_NONE
    return CODING_OTHER


cdef inline const uint8_t *_skip_space(const uint8_t *p, const uint8_t *end) noexcept nogil:
    while p != end and (p[0] == c' ' or p[0] == c'\t'):
        p += 1
    return p


cdef inline const uint8_t *_skip_token(const uint8_t *p, const uint8_t *end) noexcept nogil:
    while p != end and scan_class[p[0]] & SCAN_TOKEN:
        p += 1
    return p


cdef inline const uint8_t *_member_end(const uint8_t *p, const uint8_t *end) noexcept nogil:
    while p != end and p[0] != c',':
        p += 1
    return p


# ---- Content-Encoding ----------------------------------------------------------------------------


cdef HttpCoding coding_add(HttpCoding before, const char *value, size_t n) noexcept nogil:
    """Members are codings in the order of their application; only a single one beside `identity` is supported."""
    cdef const uint8_t *p = <const uint8_t *>value
    cdef const uint8_t *end = p + n
    cdef const uint8_t *name
    cdef const uint8_t *name_end
    cdef HttpCoding coding
    while True:
        name = _skip_space(p, end)
        name_end = _skip_token(name, end)
        p = _skip_space(name_end, end)
        if p != end and p[0] != c',':
            return CODING_OTHER
        if name != name_end:                                 # else an empty member (section 5.6.1.2)
            coding = _coding_of(name, name_end - name)
            if coding != CODING_NONE:
                if before != CODING_NONE:
                    return CODING_OTHER
                before = coding
        if p == end:
            return before
        p += 1


cdef HttpCoding http_content_coding(const char *head, const HttpRequest *request) noexcept nogil:
    cdef HttpCoding coding = CODING_NONE
    cdef const HttpHeader *header
    cdef uint32_t i
    if request.content_encoding.length == 0:
        return CODING_NONE
    for i in range(request.header_count):
        header = &request.headers[i]
        if header.name.length == 16 and scan_same(<const uint8_t *>head + header.name.start, b"content-encoding", 16):
            coding = coding_add(coding, head + header.value.start, header.value.length)
            if coding == CODING_OTHER:
                break
    return coding


# ---- Accept-Encoding -----------------------------------------------------------------------------


cdef int _weight(const uint8_t *p, const uint8_t *end) noexcept nogil:
    """weight = OWS ";" OWS "q=" qvalue (section 12.4.2), or nothing; in thousandths, or MALFORMED."""
    cdef int weight
    cdef int unit = 100
    p = _skip_space(p, end)
    if p == end:
        return WEIGHT_ONE
    if p[0] != c';':
        return MALFORMED
    p = _skip_space(p + 1, end)
    if end - p < 3 or (p[0] | 0x20) != c'q' or p[1] != c'=' or (p[2] != c'0' and p[2] != c'1'):
        return MALFORMED
    weight = WEIGHT_ONE * (p[2] - c'0')
    p += 3
    if p != end and p[0] == c'.':
        p += 1
        while p != end and c'0' <= p[0] <= c'9' and unit:
            weight += unit * (p[0] - c'0')
            unit //= 10
            p += 1
    if _skip_space(p, end) != end or weight > WEIGHT_ONE:
        return MALFORMED
    return weight


cdef inline void _note(int16_t *weight, int named) noexcept nogil:
    if weight[0] == NOT_NAMED or named < weight[0]:
        weight[0] = <int16_t>named


cdef void accepted_begin(HttpAccepted *accepted) noexcept nogil:
    accepted.gzip = accepted.zstd = accepted.identity = accepted.any = NOT_NAMED


cdef void accepted_add(HttpAccepted *accepted, const char *value, size_t n) noexcept nogil:
    cdef const uint8_t *p = <const uint8_t *>value
    cdef const uint8_t *end = p + n
    cdef const uint8_t *stop
    cdef const uint8_t *name
    cdef HttpCoding coding
    cdef int weight
    while p < end:
        stop = _member_end(p, end)
        name = _skip_space(p, stop)
        p = _skip_token(name, stop)
        weight = _weight(p, stop)
        if p != name and weight != MALFORMED:
            coding = _coding_of(name, p - name)
            if coding == CODING_GZIP:
                _note(&accepted.gzip, weight)
            elif coding == CODING_ZSTD:
                _note(&accepted.zstd, weight)
            elif coding == CODING_NONE:
                _note(&accepted.identity, weight)
            elif p - name == 1 and name[0] == c'*':
                _note(&accepted.any, weight)
        p = stop + 1


cdef inline int _weight_of(int named, int any_) noexcept nogil:
    # `*` stands for codings that are not named; a coding that neither covers is not wanted.
    if named != NOT_NAMED:
        return named
    return any_ if any_ > 0 else 0


cdef HttpCoding accepted_choose(const HttpAccepted *accepted, int available, bint *plain_refused) noexcept nogil:
    """The heaviest; of equals zstd, which is the faster at the same size, then gzip, then none.

    An answer without a coding is acceptable unless it is refused: it need not be named. If the client refuses that and
    all that is available, it gets a plain answer nevertheless, as section 12.5.3 allows: by then the work is done.
    """
    cdef int gzip = _weight_of(accepted.gzip, accepted.any) if available & CODING_GZIP else 0
    cdef int zstd = _weight_of(accepted.zstd, accepted.any) if available & CODING_ZSTD else 0
    plain_refused[0] = accepted.identity == 0 or (accepted.identity == NOT_NAMED and accepted.any == 0)
    if zstd > 0 and zstd >= gzip and zstd >= accepted.identity:
        return CODING_ZSTD
    if gzip > 0 and gzip >= accepted.identity:
        return CODING_GZIP
    return CODING_NONE


cdef HttpCoding http_accepted_coding(
    const char *head, const HttpRequest *request, int available, bint *plain_refused
) noexcept nogil:
    cdef HttpAccepted accepted
    cdef const HttpHeader *header
    cdef uint32_t i
    plain_refused[0] = False
    if request.accept_encoding.length == 0:
        return CODING_NONE
    accepted_begin(&accepted)
    for i in range(request.header_count):
        header = &request.headers[i]
        if header.name.length == 15 and scan_same(<const uint8_t *>head + header.name.start, b"accept-encoding", 15):
            accepted_add(&accepted, head + header.value.start, header.value.length)
    return accepted_choose(&accepted, available, plain_refused)


# ---- deadlines of clients ------------------------------------------------------------------------

# How long a client is willing to wait, from its header `x-request-timeout-ms`.
#
# A whole number of milliseconds from 1 on, in digits. 0 is refused: for some clients it means "no limit", for others
# "over already". Lines that repeat it must agree: it must not matter which of two a proxy and this server use.

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
