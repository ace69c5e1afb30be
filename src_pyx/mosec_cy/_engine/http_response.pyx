"""HTTP/1.1 response heads (RFC 9112 section 4) and server-sent events (WHATWG HTML, section 9.2) as bytes."""

from libc.string cimport memcpy, strlen

cdef enum:
    DATE_LINE = 37             # "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    LAST_SECOND = 253402300799  # of the year 9999


cdef inline char *put(char *to, const char *text, size_t n) noexcept nogil:
    memcpy(to, text, n)
    return to + n


cdef inline char *put_two(char *to, uint32_t number) noexcept nogil:
    to[0] = <char>(c'0' + number // 10)
    to[1] = <char>(c'0' + number % 10)
    return to + 2


cdef inline char *put_number(char *to, uint64_t number) noexcept nogil:
    cdef char digits[20]
    cdef char *p = digits + 20
    while number >= 10:
        p -= 1
        p[0] = <char>(c'0' + number % 10)
        number //= 10
    p -= 1
    p[0] = <char>(c'0' + number)
    return put(to, p, digits + 20 - p)


cdef void put_date(char *to, int64_t unix_seconds) noexcept nogil:
    """IMF-fixdate (RFC 9110 section 5.6.7), 29 bytes. Time outside the years 1970-9999 is moved to their edge.

    The calendar is H. Hinnant's `civil_from_days` (Chrono-Compatible Low-Level Date Algorithms).
    """
    cdef uint64_t seconds = 0 if unix_seconds < 0 else <uint64_t>unix_seconds
    if seconds > LAST_SECOND:
        seconds = LAST_SECOND
    cdef uint32_t days = <uint32_t>(seconds // 86400)
    cdef uint32_t second = <uint32_t>(seconds % 86400)
    # The Gregorian calendar repeats after 400 years of 146097 days. Years that begin with March have the leap day
    # last, so that a year is its days over 365.2425 and the months' lengths go in turns of 153 days for five.
    cdef uint32_t day = days + 719468              # since 1 March of the year 0
    cdef uint32_t era = day // 146097
    day %= 146097
    cdef uint32_t year = (day - day // 1460 + day // 36524 - day // 146096) // 365
    day -= 365 * year + year // 4 - year // 100
    cdef uint32_t month = (5 * day + 2) // 153     # 0: March
    day -= (153 * month + 2) // 5
    year += 400 * era + (month >= 10)
    to = put(to, &(<const char *>b"ThuFriSatSunMonTueWed")[days % 7 * 3], 3)
    to = put(to, b", ", 2)
    to = put_two(to, day + 1)
    to = put(to, &(<const char *>b" Mar Apr May Jun Jul Aug Sep Oct Nov Dec Jan Feb ")[month * 4], 5)
    to = put_two(to, year // 100)
    to = put_two(to, year % 100)
    to[0] = c' '
    to = put_two(to + 1, second // 3600)
    to[0] = c':'
    to = put_two(to + 1, second // 60 % 60)
    to[0] = c':'
    to = put_two(to + 1, second % 60)
    put(to, b" GMT", 4)


cdef void writer_init(HttpWriter *writer, const char *server, size_t n) noexcept nogil:
    cdef char *to = put(writer.common, b"server: ", 8)
    to = put(to, server, n if n < HTTP_SERVER_MAX else HTTP_SERVER_MAX)
    to = put(to, b"\r\ndate: ", 8)
    put_date(to, 0)
    to = put(to + 29, b"\r\n", 2)
    writer.second = 0
    writer.common_n = <uint32_t>(to - writer.common)


cdef void writer_set_time(HttpWriter *writer, int64_t unix_seconds) noexcept nogil:
    if unix_seconds != writer.second:
        writer.second = unix_seconds
        put_date(writer.common + writer.common_n - DATE_LINE + 6, unix_seconds)


cdef uint32_t writer_head(HttpWriter *writer, char *out, int status, const char *content_type, size_t content_type_n,
                          uint64_t content_length, const char *extra, size_t extra_n, uint32_t flags) noexcept nogil:
    cdef char *to = out
    if content_type_n > HTTP_CONTENT_TYPE_MAX or extra_n > HTTP_EXTRA_MAX:
        return 0
    if status == 200:
        to = put(to, b"HTTP/1.1 200 OK\r\n", 17)
    else:
        to = put_status(to, status)
    if status >= 200:
        to = put(to, writer.common, writer.common_n)
        if content_type_n:
            to = put(to, b"content-type: ", 14)
            to = put(to, content_type, content_type_n)
            to = put(to, b"\r\n", 2)
        if status != 204:
            to = put_framing(to, content_length, flags)
        if flags & WRITE_CLOSE:
            to = put(to, b"connection: close\r\n", 19)
        elif flags & WRITE_KEEP_ALIVE_10:
            to = put(to, b"connection: keep-alive\r\n", 24)
    if extra_n:
        to = put(to, extra, extra_n)
    to = put(to, b"\r\n", 2)
    return <uint32_t>(to - out)


cdef inline char *put_framing(char *to, uint64_t content_length, uint32_t flags) noexcept nogil:
    if flags & WRITE_CHUNKED:
        return put(to, b"transfer-encoding: chunked\r\n", 28)
    if flags & WRITE_NO_LENGTH:
        return to
    to = put(to, b"content-length: ", 16)
    to = put_number(to, content_length)
    return put(to, b"\r\n", 2)


cdef char *put_status(char *to, int status) noexcept nogil:
    cdef const char *reason = http_reason(status)
    to = put(to, b"HTTP/1.1 ", 9)
    to = put_number(to, status)
    to[0] = c' '
    to = put(to + 1, reason, strlen(reason))
    return put(to, b"\r\n", 2)


cdef const char *http_reason(int status) noexcept nogil:
    if status == 200: return b"OK"
    if status == 204: return b"No Content"
    if status == 400: return b"Bad Request"
    if status == 401: return b"Unauthorized"
    if status == 403: return b"Forbidden"
    if status == 404: return b"Not Found"
    if status == 405: return b"Method Not Allowed"
    if status == 406: return b"Not Acceptable"
    if status == 408: return b"Request Timeout"
    if status == 409: return b"Conflict"
    if status == 411: return b"Length Required"
    if status == 413: return b"Content Too Large"
    if status == 414: return b"URI Too Long"
    if status == 415: return b"Unsupported Media Type"
    if status == 417: return b"Expectation Failed"
    if status == 422: return b"Unprocessable Content"
    if status == 426: return b"Upgrade Required"
    if status == 429: return b"Too Many Requests"
    if status == 431: return b"Request Header Fields Too Large"
    if status == 500: return b"Internal Server Error"
    if status == 501: return b"Not Implemented"
    if status == 502: return b"Bad Gateway"
    if status == 503: return b"Service Unavailable"
    if status == 504: return b"Gateway Timeout"
    if status == 505: return b"HTTP Version Not Supported"
    return b""


# ---- server-sent events --------------------------------------------------------------------------

# An event is an `event:` line, `data:` lines and an empty one (WHATWG HTML, section 9.2).

cdef enum:
    CR = 13
    LF = 10

cdef inline uint64_t line_bytes(const uint8_t *text, uint64_t n, uint64_t *ending) noexcept nogil:
    """Bytes of the first line of the text, and of what ends it: 0 for the last line."""
    cdef uint64_t length = 0
    while length < n and text[length] != CR and text[length] != LF:
        length += 1
    ending[0] = length < n
    if length + 1 < n and text[length] == CR and text[length + 1] == LF:
        ending[0] = 2
    return length


cdef uint64_t event_bytes(const char *name, const char *prefix, const uint8_t *text, uint64_t n) noexcept nogil:
    cdef uint64_t total = strlen(prefix) + 1
    cdef uint64_t at = 0
    cdef uint64_t ending = 1
    cdef uint64_t length
    if name != NULL:
        total += 8 + strlen(name)
    while ending:
        length = line_bytes(text + at, n - at, &ending)
        total += 7 + length
        at += length + ending
    return total


cdef uint8_t *event_write(uint8_t *to, const char *name, const char *prefix, const uint8_t *text,
                          uint64_t n) noexcept nogil:
    cdef uint64_t at = 0
    cdef uint64_t ending = 1
    cdef uint64_t length
    cdef char *p = <char *>to
    if name != NULL:
        p = put(put(put(p, b"event: ", 7), name, strlen(name)), b"\n", 1)
    while ending:
        length = line_bytes(text + at, n - at, &ending)
        # One space after the colon is not part of the data: with it, the text may begin with one of its own.
        p = put(p, b"data: ", 6)
        if at == 0:
            p = put(p, prefix, strlen(prefix))
        p = put(put(p, <const char *>text + at, length), b"\n", 1)
        at += length + ending
    return <uint8_t *>put(p, b"\n", 1)
