"""Response heads and server-sent events as Python objects, for tests and benchmarks: no socket and no clock."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from mosec_cy._engine.http_response cimport (
    HTTP_CONTENT_TYPE_MAX,
    HTTP_EXTRA_MAX,
    HTTP_HEAD_ROOM,
    WRITE_CHUNKED,
    WRITE_CLOSE,
    WRITE_KEEP_ALIVE_10,
    WRITE_NO_LENGTH,
    HttpWriter,
    event_bytes,
    event_write,
    writer_head,
    writer_init,
    writer_set_time,
)

cdef const char *NO_NAME = NULL


cdef class ResponseWriter:
    """Response heads to bytes; for tests and benchmarks of http_response.pyx. `server`: at most 64 bytes."""

    cdef HttpWriter writer

    def __init__(self, bytes server not None):
        writer_init(&self.writer, server, len(server))

    def set_time(self, int64_t unix_seconds):
        """The time of the `date` lines from now on."""
        writer_set_time(&self.writer, unix_seconds)

    def head(self, int status, bytes content_type not None, uint64_t content_length, bytes extra not None=b"", *,
             bint close=False, bint keep_alive_10=False, bint no_length=False, bint chunked=False) -> bytes:
        """The head of a response; ValueError where `content_type` or `extra` is too long."""
        cdef char out[HTTP_HEAD_ROOM]
        cdef uint32_t flags = (WRITE_CLOSE * close | WRITE_KEEP_ALIVE_10 * keep_alive_10
                               | WRITE_NO_LENGTH * no_length | WRITE_CHUNKED * chunked)
        cdef uint32_t n = writer_head(&self.writer, out, status, content_type, len(content_type), content_length,
                                      extra, len(extra), flags)
        if n == 0:
            raise ValueError(f"content_type beyond {HTTP_CONTENT_TYPE_MAX} bytes or extra beyond {HTTP_EXTRA_MAX}")
        return out[:n]


def format_event(bytes text not None, bytes name=None, bytes prefix not None=b""):
    """An event's bytes; for tests of http_response.pyx. `prefix` and `name` hold no line end."""
    cdef const char *event = NO_NAME if name is None else PyBytes_AS_STRING(name)
    cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(text)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, event_bytes(event, prefix, data, len(text)))
    cdef uint8_t *start = <uint8_t *>PyBytes_AS_STRING(out)
    cdef uint8_t *end = event_write(start, event, prefix, data, len(text))
    assert end - start == len(out)
    return out
