# What core answers by itself to those who ask how the service is.

from mosec_cy._http1_service cimport Verdict
from mosec_cy._router cimport Probe
from mosec_cy._state cimport Service

cdef void probe_answer(Service *s, Probe probe, Verdict *verdict) noexcept nogil
