# HTTP/1.1 response heads to bytes. Pure: time is an argument, memory is given.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum:
    HTTP_HEAD_ROOM = 1024      # bytes that any response head fits in (content type <= 256 bytes, extra <= 384)
    WRITE_CLOSE = 1            # connection: close
    WRITE_KEEP_ALIVE_10 = 2    # connection: keep-alive, for an HTTP/1.0 client that asked for it
    WRITE_NO_LENGTH = 4        # no content-length (204, 1xx, or a chunked body)
    WRITE_CHUNKED = 8          # transfer-encoding: chunked

ctypedef struct HttpWriter:
    char server[64]            # "mosec_cy/VERSION"
    uint32_t server_n
    int64_t second             # for which `date` was made
    char date[32]              # IMF-fixdate, 29 bytes (RFC 9110 section 5.6.7)

cdef void writer_init(HttpWriter *writer, const char *server, size_t n) noexcept nogil
cdef void writer_set_time(HttpWriter *writer, int64_t unix_seconds) noexcept nogil    # cheap when the second is the same
# The head into `out` (HTTP_HEAD_ROOM bytes); `extra`: complete header lines, each with CRLF, or NULL. Bytes written.
cdef uint32_t writer_head(HttpWriter *writer, char *out, int status, const char *content_type, size_t content_type_n,
                          uint64_t content_length, const char *extra, size_t extra_n, uint32_t flags) noexcept nogil
cdef const char *http_reason(int status) noexcept nogil
