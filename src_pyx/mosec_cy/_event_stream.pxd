# Server-sent events (WHATWG HTML, section 9.2.6 "Interpreting an event stream") as bytes. Pure.

from libc.stdint cimport uint8_t, uint64_t

# Bytes of an event whose data is `prefix` (no line end in it) and then `text`, both UTF-8. Each line of the text, ended
# by CR, LF or CRLF, is a `data:` line of its own; `name`: an `event:` line before them, or NULL.
cdef uint64_t event_bytes(const char *name, const char *prefix, const uint8_t *text, uint64_t n) noexcept nogil
# The event itself; `to` has room for it. One past its end.
cdef uint8_t *event_write(uint8_t *to, const char *name, const char *prefix, const uint8_t *text,
                          uint64_t n) noexcept nogil
