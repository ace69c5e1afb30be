"""Which route a request's method and path mean."""

from libc.string cimport memcmp

from mosec_cy._http_parser cimport METHOD_GET, METHOD_HEAD, METHOD_OPTIONS


cdef inline bint _path_matches(const Route *route, const char *path, size_t n) noexcept nogil:
    if n < route.path_n or memcmp(path, route.path, route.path_n) != 0:
        return False
    return n == route.path_n or (route.prefix and path[route.path_n] == 47)      # '/'


cdef RouteMatch router_match(
    const Route *routes, uint32_t count, HttpMethod method, const char *path, size_t n, uint32_t *index
) noexcept nogil:
    cdef uint32_t i
    cdef uint32_t best = ROUTE_NONE
    for i in range(count):
        if _path_matches(&routes[i], path, n) and (best == ROUTE_NONE or routes[i].path_n > routes[best].path_n):
            best = i
    index[0] = best
    if best == ROUTE_NONE:
        return MATCH_NO_PATH
    if method == routes[best].method or (method == METHOD_HEAD and routes[best].method == METHOD_GET):
        return MATCH_FOUND
    if method == METHOD_OPTIONS:
        return MATCH_OPTIONS
    return MATCH_NO_METHOD
