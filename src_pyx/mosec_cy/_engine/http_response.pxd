# HTTP/1.1 response heads (RFC 9112 section 4) to bytes. Pure: time is an argument, memory is given.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t

cdef enum:
    HTTP_SERVER_MAX = 64       # bytes of the server's name; more are cut off
    HTTP_CONTENT_TYPE_MAX = 256
    HTTP_EXTRA_MAX = 384
    HTTP_HEAD_ROOM = 1024      # bytes that any response head fits in

cdef enum:                     # flags of writer_head
    WRITE_CLOSE = 1            # connection: close
    WRITE_KEEP_ALIVE_10 = 2    # connection: keep-alive, for an HTTP/1.0 client that asked for it
    WRITE_NO_LENGTH = 4        # no content-length (the body ends with the connection)
    WRITE_CHUNKED = 8          # transfer-encoding: chunked, in the place of content-length

ctypedef struct HttpWriter:
    int64_t second             # Unix time for which the date was made
    uint32_t common_n
    char common[112]           # "server: ...\r\ndate: ...\r\n", the same in all heads of a second

cdef void writer_init(HttpWriter *writer, const char *server, size_t n) noexcept nogil
# Called before the first head, and once in each round of the loop: cheap while the second is the same.
cdef void writer_set_time(HttpWriter *writer, int64_t unix_seconds) noexcept nogil
# Writes the head to `out` (HTTP_HEAD_ROOM bytes). `content_type` of length 0: none; `extra`: whole header lines, each
# with CRLF, or NULL. Neither is checked for invalid bytes. Returns the bytes written; 0: one of them is too long.
# 1xx has `extra` only, and neither 1xx nor 204 gets a content-length or transfer-encoding (RFC 9110 section 8.6).
cdef uint32_t writer_head(HttpWriter *writer, char *out, int status, const char *content_type, size_t content_type_n,
                          uint64_t content_length, const char *extra, size_t extra_n, uint32_t flags) noexcept nogil
# "" for a status that is not listed: the phrase is optional (RFC 9112 section 4).
cdef const char *http_reason(int status) noexcept nogil

# ---- server-sent events --------------------------------------------------------------------------
# Server-sent events (WHATWG HTML, section 9.2.6 "Interpreting an event stream") as bytes. Pure.

# Bytes of an event whose data is `prefix` (no line end in it) and then `text`, both UTF-8. Each line of the text, ended
# by CR, LF or CRLF, is a `data:` line of its own; `name`: an `event:` line before them, or NULL.
cdef uint64_t event_bytes(const char *name, const char *prefix, const uint8_t *text, uint64_t n) noexcept nogil
# Writes the event to `to`, which has room for it; returns one past its end.
cdef uint8_t *event_write(uint8_t *to, const char *name, const char *prefix, const uint8_t *text,
                          uint64_t n) noexcept nogil
