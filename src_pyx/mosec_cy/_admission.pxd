# Whether a request is taken in, and until when its client waits for it.

from libc.stdint cimport uint32_t, uint64_t

from mosec_cy._http1_service cimport Verdict
from mosec_cy._http_parser cimport HttpRequest
from mosec_cy._state cimport Service

cdef const char *STOPPING                                              # what a 503 of a shutdown says

# Sets verdict.deadline by what the client says at its head. False: malformed, refused in *verdict.
cdef bint admission_deadline(
    const Service *s, const char *head, const HttpRequest *request, Verdict *verdict
) noexcept nogil
# True: refused in *verdict, since the service stops, the queue is full, its time is over, or would be before its
# turn. Asked at the head, so that nobody sends a body for nothing, and again when the body is there.
cdef bint admission_refuses(Service *s, uint32_t route, uint64_t deadline, Verdict *verdict) noexcept nogil
# A 503; its client is asked to come back in a while.
cdef void admission_unavailable(Service *s, const char *text, Verdict *verdict) noexcept nogil
# The same, because the service shuts down.
cdef void admission_stopping(Service *s, Verdict *verdict) noexcept nogil
