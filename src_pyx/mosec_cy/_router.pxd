# Which route a request's method and path mean. Pure.

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t

from mosec_cy._http_parser cimport HttpMethod

cdef enum:
    ROUTE_NONE = 0xFFFFFFFF

cdef enum Probe:               # what core answers by itself
    PROBE_ALIVE                # the service runs, as Mosec says it
    PROBE_LIVE                 # and gets on with its work
    PROBE_READY                # and each stage has a worker

ctypedef struct Route:
    const char *path
    size_t path_n
    HttpMethod method          # METHOD_POST, or METHOD_GET (HEAD is then allowed too)
    bint prefix                # also every path below it
    const uint32_t *stages
    uint32_t stage_count       # 0: core answers it by itself, see `probe`
    Probe probe
    bint streams               # its last stage sends events
    const char *allow          # the Allow header's line

cdef enum RouteMatch:
    MATCH_FOUND = 0
    MATCH_NO_PATH = 404
    MATCH_NO_METHOD = 405
    MATCH_OPTIONS = 204        # OPTIONS on a route that is there

# The route in *index (ROUTE_NONE if no path matches). The longest path that matches wins.
cdef RouteMatch router_match(
    const Route *routes, uint32_t count, HttpMethod method, const char *path, size_t n, uint32_t *index
) noexcept nogil
