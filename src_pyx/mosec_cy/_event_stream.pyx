"""Server-sent events as bytes (WHATWG HTML, section 9.2): `event:` and `data:` lines, and an empty one."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, strlen

cdef enum:
    CR = 13
    LF = 10

cdef const char *NO_NAME = NULL


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


cdef inline uint8_t *put(uint8_t *to, const void *from_, size_t n) noexcept nogil:
    memcpy(to, from_, n)
    return to + n


cdef uint8_t *event_write(uint8_t *to, const char *name, const char *prefix, const uint8_t *text,
                          uint64_t n) noexcept nogil:
    cdef uint64_t at = 0
    cdef uint64_t ending = 1
    cdef uint64_t length
    if name != NULL:
        to = put(put(put(to, b"event: ", 7), name, strlen(name)), b"\n", 1)
    while ending:
        length = line_bytes(text + at, n - at, &ending)
        # One space after the colon is not part of the data: with it, the text may begin with one of its own.
        to = put(to, b"data: ", 6)
        if at == 0:
            to = put(to, prefix, strlen(prefix))
        to = put(put(to, text + at, length), b"\n", 1)
        at += length + ending
    return put(to, b"\n", 1)


def format_event(bytes text not None, bytes name=None, bytes prefix not None=b""):
    """An event's bytes; for tests of the C functions above. `prefix` and `name` hold no line end."""
    cdef const char *event = NO_NAME if name is None else PyBytes_AS_STRING(name)
    cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(text)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, event_bytes(event, prefix, data, len(text)))
    cdef uint8_t *start = <uint8_t *>PyBytes_AS_STRING(out)
    cdef uint8_t *end = event_write(start, event, prefix, data, len(text))
    assert end - start == len(out)
    return out
