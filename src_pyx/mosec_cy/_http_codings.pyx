"""Content codings of a request (RFC 9110): what its body has, and what its answer may have.

A member of Accept-Encoding that is malformed counts as not sent: the header states preferences, so a request is
not refused for it. Of a coding that is named several times the lowest weight counts: what is refused once is not sent.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t

from mosec_cy._http_parser cimport HttpHeader
from mosec_cy._scan cimport SCAN_TOKEN, scan_class, scan_same

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
    """Members are codings in the order of their application; one beside `identity` is all that is served."""
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
    # `*` speaks for what is not named; what neither names is not wanted.
    if named != NOT_NAMED:
        return named
    return any_ if any_ > 0 else 0


cdef HttpCoding accepted_choose(const HttpAccepted *accepted, int available, bint *plain_refused) noexcept nogil:
    """The heaviest; of equals zstd, which is the faster at the same size, then gzip, then none.

    Without a coding an answer is acceptable unless it is refused: it need not be named. Who refuses that and all that
    is available is answered plain nevertheless, as section 12.5.3 allows: the work on the answer is done by then.
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


# ---- for tests -----------------------------------------------------------------------------------


def content_coding(*values) -> int:
    """HttpCoding of these lines of Content-Encoding, any contiguous buffers of bytes."""
    cdef HttpCoding coding = CODING_NONE
    cdef Py_buffer view
    for value in values:
        PyObject_GetBuffer(value, &view, PyBUF_SIMPLE)
        if coding != CODING_OTHER:
            coding = coding_add(coding, <const char *>view.buf, view.len)
        PyBuffer_Release(&view)
    return coding


def accepted_coding(int available, *values) -> tuple[int, bool]:
    """HttpCoding of an answer to these lines of Accept-Encoding, and whether one without a coding is refused."""
    cdef HttpAccepted accepted
    cdef bint plain_refused = False
    cdef HttpCoding coding
    cdef Py_buffer view
    accepted_begin(&accepted)
    for value in values:
        PyObject_GetBuffer(value, &view, PyBUF_SIMPLE)
        accepted_add(&accepted, <const char *>view.buf, view.len)
        PyBuffer_Release(&view)
    coding = accepted_choose(&accepted, available, &plain_refused)
    return coding, plain_refused
