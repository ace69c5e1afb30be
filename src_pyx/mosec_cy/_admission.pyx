"""Whether a request is taken in, and until when its client waits for it.

A queue that is longer than the time-out is worse than none: whoever gets to its head has waited for almost all of its
time, is given up at work, and all work is for nothing. So who would not be through in time is refused at once.
Without a queue of more than the rows take at once nobody is: there is always work by which the forecast is put right.
"""

from libc.stdint cimport int64_t
from libc.stdio cimport snprintf

from mosec_cy._batcher cimport Stage
from mosec_cy._forecast cimport stage_forecast
from mosec_cy._http_timeout cimport TIMEOUT_MALFORMED, http_request_timeout
from mosec_cy._router cimport Route
from mosec_cy._tasks cimport SERVICE_TIMEOUT

cdef enum:
    SECOND_NS = 1_000_000_000
    MILLISECOND_NS = 1_000_000

cdef const char *BAD_TIMEOUT = b"bad request: x-request-timeout-ms must be a whole number of milliseconds from 1 on"
cdef const char *FULL = b"too many request: task queue is full"
cdef const char *HOPELESS = b"service is overloaded: the request would not be answered in time"
cdef const char *STOPPING = b"gracefully shutting down"


cdef bint admission_deadline(
    const Service *s, const char *head, const HttpRequest *request, Verdict *verdict
) noexcept nogil:
    cdef int64_t timeout = http_request_timeout(head, request)
    if timeout == TIMEOUT_MALFORMED:
        verdict.status = 400
        verdict.text = BAD_TIMEOUT
        return False
    # More than the service allows is what it allows: that runs from when the body is there, and so ends later.
    if 0 < timeout and <uint64_t>timeout < s.timeout // MILLISECOND_NS:
        verdict.deadline = s.now + <uint64_t>timeout * MILLISECOND_NS
    return True


cdef void _refuse(Service *s, int status, const char *text, uint64_t retry_ns, Verdict *verdict) noexcept nogil:
    # RFC 9110 section 10.2.3, in seconds: until the queue of now is done with, and not beyond the service's time-out.
    # One line for all: an answer that goes out later than another refusal tells what is known by then.
    cdef uint64_t seconds = (min(retry_ns, s.timeout) + SECOND_NS - 1) // SECOND_NS
    snprintf(s.retry_line, sizeof(s.retry_line), b"retry-after: %u\r\n", <uint32_t>max(seconds, <uint64_t>1))
    verdict.status = status
    verdict.text = text
    verdict.extra = s.retry_line


cdef inline uint64_t _forecast(const Service *s, const Route *route) noexcept nogil:
    cdef uint64_t total = 0
    cdef uint32_t i
    cdef const Stage *stage
    for i in range(route.stage_count):
        stage = &s.batcher.stages[route.stages[i]]
        if stage.waiting > stage.rows * stage.max_batch_size:      # as in there: mostly there is nothing to call it for
            total += stage_forecast(&s.batcher, route.stages[i], s.now)
    return total


cdef bint admission_refuses(Service *s, uint32_t route, uint64_t deadline, Verdict *verdict) noexcept nogil:
    cdef uint64_t left = s.timeout
    cdef uint64_t needed
    if s.draining:
        admission_stopping(s, verdict)
        return True
    needed = _forecast(s, &s.routes[route])
    if s.batcher.stages[s.routes[route].stages[0]].waiting >= s.capacity:
        _refuse(s, 429, FULL, needed, verdict)
        return True
    if deadline:
        left = deadline - s.now if deadline > s.now else 0
    if left == 0:
        verdict.status = 408
        verdict.text = SERVICE_TIMEOUT
        return True
    # The forecast is a mean: a quarter of the time is kept for what turns out slower.
    if needed > left - left // 4:
        _refuse(s, 503, HOPELESS, needed, verdict)
        return True
    return False


cdef void admission_stopping(Service *s, Verdict *verdict) noexcept nogil:
    _refuse(s, 503, STOPPING, 0, verdict)


cdef void admission_unavailable(Service *s, const char *text, Verdict *verdict) noexcept nogil:
    _refuse(s, 503, text, 0, verdict)
