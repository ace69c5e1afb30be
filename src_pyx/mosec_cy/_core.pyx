"""The core process: event loop, connections and service put together from the master's configuration."""

import os

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from mosec_cy._batcher cimport Row, Stage, Task, batcher_init
from mosec_cy._connection cimport (
    NO_CONNECTION,
    TIMER_BODY,
    TIMER_HEADER,
    TIMER_IDLE,
    TIMER_LINGER,
    TIMER_PROBE,
    TIMER_STREAM,
    TIMER_WRITE,
)
from mosec_cy._core_loop cimport MAX_LISTENERS, Core, core_report, core_run
from mosec_cy._deadlines cimport Deadline, Deadlines, deadlines_init
from mosec_cy._health cimport StageHealth, Vigil, health_init
from mosec_cy._http1 cimport http1_answer, http1_close, http1_open, http1_stream
from mosec_cy._http1_service cimport Answer
from mosec_cy._http1_state cimport Http1Io
from mosec_cy._http_codings cimport CODING_GZIP, CODING_ZSTD
from mosec_cy._http_parser cimport METHOD_GET, METHOD_POST
from mosec_cy._http_writer cimport HTTP_CONTENT_TYPE_MAX, writer_init
from mosec_cy._linux cimport EPOLLIN
from mosec_cy._loop cimport TOKEN_CONTROL, loop_add, loop_close, loop_open, loop_token
from mosec_cy._pool cimport pool_detach
from mosec_cy._router cimport PROBE_ALIVE, PROBE_LIVE, PROBE_READY, Route
from mosec_cy._segment cimport Segment
from mosec_cy._service cimport service_bind, service_row_started
from mosec_cy._state cimport ContentType, Link, Service
from mosec_cy._trimmer cimport trimmer_close, trimmer_open

from mosec_cy._segment import Segment as SegmentType

cdef enum:
    HEADER_LINE = 8192                 # bytes of a request line
    HEADER_ALL = 32768                 # bytes of a head
    HEADER_COUNT = 100
    SPARE_DESCRIPTORS = 16
    LINGER_PERIOD_NS = 2_000_000_000   # without a byte of what a refused client still sends
    PROBE_NS = 100_000_000             # from a client's FIN to the question whether it is still there

cdef const char *ALLOW_GET = b"allow: GET, HEAD, OPTIONS\r\n"
cdef const char *ALLOW_POST = b"allow: POST, OPTIONS\r\n"

PROBES = [
    {"path": path, "method": "GET", "prefix": False, "stages": [], "probe": probe}
    for path, probe in (("/", PROBE_ALIVE), ("/health/live", PROBE_LIVE), ("/health/ready", PROBE_READY))
]


cdef bint _answer(void *io, uint32_t slot, uint32_t generation, const Answer *answer) noexcept nogil:
    return http1_answer(<Http1Io *>io, slot, generation, answer)


cdef void _stream(void *io, uint32_t slot, uint32_t generation, const uint8_t *event, uint64_t n) noexcept nogil:
    http1_stream(<Http1Io *>io, slot, generation, event, n)


cdef class _Engine:
    """Owns what one run of the core allocates, and keeps the configuration's strings alive."""

    cdef Core core
    cdef Segment segment
    cdef list strings
    cdef list arrays

    def __cinit__(self):
        memset(&self.core, 0, sizeof(Core))
        self.core.loop.epoll = -1
        self.strings = []

    def __dealloc__(self):
        cdef Service *s = &self.core.service
        cdef uint32_t i
        http1_close(&self.core.io)
        if self.core.loop.epoll >= 0:
            loop_close(&self.core.loop)
        trimmer_close(&s.trimmer)
        pool_detach(&s.pool)
        if s.routes != NULL:
            for i in range(s.route_count):
                free(<void *>s.routes[i].stages)
        free(s.health.vigils)
        free(s.health.stages)
        free(s.lacking_texts)
        free(s.stalled_texts)
        free(s.links)
        free(s.routes)
        free(s.content_types)
        free(s.stage_timeouts)
        free(s.scratch)
        free(s.batcher.tasks)
        free(s.deadlines.heap)
        free(s.deadlines.places)
        free(s.batcher.stages)
        free(s.batcher.rows)

    cdef void *array(self, size_t n, size_t size) except NULL:
        cdef void *memory = calloc(n, size)
        if memory == NULL:
            raise MemoryError(f"{n * size} bytes")
        return memory

    cdef const char *text(self, str value) except NULL:
        encoded = value.encode()
        self.strings.append(encoded)
        return <const char *>encoded

    cdef uint32_t descriptors_left(self) except 0:
        # For connections: some are kept back, or a full house could not be told of a new worker (its pidfd).
        cdef object used
        try:
            used = len(os.listdir("/proc/self/fd"))
        except OSError:
            used = 64               # core has not many yet
        return max(1, os.sysconf("SC_OPEN_MAX") - used - 2 * self.segment.rows - SPARE_DESCRIPTORS)

    cdef int open_io(self, dict config) except -1:
        cdef Http1Io *io = &self.core.io
        cdef bytes server = config["server"].encode()
        if http1_open(io, min(config["max_connections"], self.descriptors_left())) != 0:
            raise MemoryError("connections")
        io.limits.line = HEADER_LINE
        io.limits.head = HEADER_ALL
        io.limits.headers = HEADER_COUNT
        io.max_body = config["max_request_size"]
        io.connections.duration[<int>TIMER_HEADER] = config["header_timeout_ns"]
        io.connections.duration[<int>TIMER_BODY] = config["body_timeout_ns"]
        io.connections.duration[<int>TIMER_WRITE] = config["write_timeout_ns"]
        io.connections.duration[<int>TIMER_IDLE] = config["idle_timeout_ns"]
        io.connections.duration[<int>TIMER_STREAM] = config["stream_comment_ns"]
        io.connections.duration[<int>TIMER_LINGER] = LINGER_PERIOD_NS
        io.connections.duration[<int>TIMER_PROBE] = PROBE_NS
        writer_init(&io.writer, server, len(server))
        return 0

    cdef int open_stages(self, list stages) except -1:
        cdef Service *s = &self.core.service
        cdef Stage *table = <Stage *>self.array(len(stages), sizeof(Stage))
        cdef Row *rows = <Row *>self.array(self.segment.rows, sizeof(Row))
        cdef Task *tasks = <Task *>self.array(self.segment.task_slots, sizeof(Task))
        cdef uint32_t i, row
        s.batcher.stages, s.batcher.rows, s.batcher.tasks = table, rows, tasks
        s.stage_timeouts = <uint64_t *>self.array(len(stages), sizeof(uint64_t))
        for i, stage in enumerate(stages):
            table[i].max_batch_size = stage["max_batch_size"]
            table[i].max_wait_ns = stage["max_wait_ns"]
            table[i].retry = stage.get("retry", 0)
            s.stage_timeouts[i] = stage["timeout_ns"]
            for row in range(stage["first_row"], stage["first_row"] + stage["rows"]):
                rows[row].stage = i
                rows[row].ring_capacity = self.segment.submit_capacity(row)
        s.scratch = <uint32_t *>self.array(self.segment.task_slots, sizeof(uint32_t))
        batcher_init(&s.batcher, tasks, self.segment.words(), self.segment.task_slots, table, len(stages), rows,
                     self.segment.rows)
        return 0

    cdef int open_deadlines(self) except -1:
        cdef Deadlines *d = &self.core.service.deadlines
        d.heap = <Deadline *>self.array(self.segment.task_slots, sizeof(Deadline))
        d.places = <uint32_t *>self.array(self.segment.task_slots, sizeof(uint32_t))
        deadlines_init(d, d.heap, d.places)
        return 0

    cdef int open_rows(self, int master_bell) except -1:
        cdef Service *s = &self.core.service
        cdef uint32_t row
        s.links = <Link *>self.array(self.segment.rows, sizeof(Link))
        s.row_statistics = self.segment.row_statistics(0)
        for row in range(self.segment.rows):
            self.segment.attach_submit(row, &s.links[row].submit)
            self.segment.attach_complete(row, &s.links[row].complete)
            s.links[row].shared = self.segment.row(row)
            s.links[row].statistics = s.row_statistics + row
            s.links[row].wake_fd = master_bell if row == 0 else -1
            service_row_started(s, row, 0, 0, -1)
        service_row_started(s, 0, 1, 0, -1)        # the master's own row has always been there
        return 0

    cdef int open_routes(self, list routes, list content_types) except -1:
        cdef Service *s = &self.core.service
        cdef Route *route
        cdef uint32_t *stages
        cdef uint32_t i, k
        s.counted_routes = len(routes)
        s.routes = <Route *>self.array(len(routes) + len(PROBES), sizeof(Route))
        s.content_types = <ContentType *>self.array(len(content_types), sizeof(ContentType))
        for i, entry in enumerate([*routes, *PROBES]):
            route = &s.routes[i]
            route.path = self.text(entry["path"])
            route.path_n = len(entry["path"].encode())
            route.method = METHOD_GET if entry["method"] == "GET" else METHOD_POST
            route.prefix = entry["prefix"]
            route.allow = ALLOW_GET if route.method == METHOD_GET else ALLOW_POST
            stages = <uint32_t *>self.array(len(entry["stages"]) + 1, sizeof(uint32_t))
            route.stages = stages
            route.stage_count = len(entry["stages"])
            route.streams = entry.get("streams", False)
            route.probe = entry.get("probe", PROBE_ALIVE)
            for k in range(route.stage_count):
                stages[k] = entry["stages"][k]
            if route.streams:
                self.mark_streaming(stages[route.stage_count - 1])
            s.route_count = i + 1
        for i, value in enumerate(content_types):
            s.content_types[i].text = self.text(value)
            s.content_types[i].n = len(value.encode())
            if s.content_types[i].n > HTTP_CONTENT_TYPE_MAX:
                raise ValueError(f"a content type is at most {HTTP_CONTENT_TYPE_MAX} bytes: {value!r}")
        s.content_type_count = len(content_types)
        return 0

    cdef int open_health(self, list stages, uint64_t margin) except -1:
        cdef Service *s = &self.core.service
        cdef uint32_t rows = s.batcher.row_count
        cdef StageHealth *table = <StageHealth *>self.array(len(stages), sizeof(StageHealth))
        s.health.stages = table
        s.health.vigils = <Vigil *>self.array(rows, sizeof(Vigil))
        s.lacking_texts = <const char **>self.array(len(stages), sizeof(char *))
        s.stalled_texts = <const char **>self.array(len(stages), sizeof(char *))
        for i, stage in enumerate(stages):
            # By then an overrun of `forward` has been ended, and who decodes or encodes for longer than clients wait,
            # if need be by its death: a row that still does nothing hangs.
            table[i].patience = max(s.timeout, <uint64_t>stage["timeout_ns"]) + s.kill_grace + margin
            s.lacking_texts[i] = self.text(f"not ready: {stage['name']} has no worker")
            s.stalled_texts[i] = self.text(f"stalled: {stage['name']} does not get on with its work")
        health_init(&s.health, s.health.vigils, rows, table, len(stages))
        return 0

    cdef void mark_streaming(self, uint32_t stage) noexcept:
        cdef Service *s = &self.core.service
        cdef uint32_t row
        for row in range(s.batcher.row_count):
            s.links[row].streams = s.links[row].streams or s.batcher.rows[row].stage == stage

    cdef int open_codings(self, list names) except -1:
        cdef Service *s = &self.core.service
        for name in names:
            s.codings |= {"gzip": CODING_GZIP, "zstd": CODING_ZSTD}[name]
        s.codings_text = self.text(f"content-encoding is not supported: send one of {', '.join(names)}, or none")
        s.codings_line = self.text(f"accept-encoding: {', '.join(names)}\r\n")
        return 0

    cdef int open_service(self, dict config) except -1:
        cdef Service *s = &self.core.service
        cdef uint64_t budget = self.segment.budget
        if self.segment.attach_pool(&s.pool, 0) != 0:
            raise MemoryError("block pool")
        if trimmer_open(&s.trimmer, &s.pool) != 0:
            raise MemoryError("trimmer")
        s.statistics = self.segment.statistics()
        s.status_counts = self.segment.status_counts(0)
        s.timeout = config["service_timeout_ns"]
        s.kill_grace = config["kill_grace_ns"]
        s.capacity = config["capacity"]
        s.charge_limit = budget // 2
        s.timer_head = s.timer_tail = NO_CONNECTION
        self.open_deadlines()
        self.open_stages(config["stages"])
        self.open_rows(config["master_bell_fd"])
        self.open_routes(config["routes"], config["content_types"])
        self.open_health(config["stages"], config["stall_margin_ns"])
        self.open_codings(config["codings"])
        s.io = &self.core.io
        s.answer = _answer
        s.stream = _stream
        s.acknowledged = self.segment.acknowledged()
        s.control = &self.core
        s.report = core_report
        service_bind(s, &self.core.io.service)
        return 0

    cdef int open_loop(self, dict config) except -1:
        cdef Core *core = &self.core
        cdef int rc = loop_open(&core.loop, config["bell_fd"], self.segment.core_bell())
        if rc == 0:
            core.control = config["control_fd"]
            rc = loop_add(&core.loop, core.control, EPOLLIN, loop_token(TOKEN_CONTROL, 0, 0))
        if rc != 0:
            raise OSError(-rc, "epoll")
        for fd in config["listen_fds"][:MAX_LISTENERS]:
            core.listeners[core.listener_count] = fd
            core.listener_count += 1
        core.io.now = core.service.now = core.loop.now
        return 0


def run_core(dict config):
    """Serves until the master says stop or is gone; the process' exit status.

    Args:
        config: made by the master; descriptors in it are inherited.

    Raises:
        OSError, MemoryError, ValueError: the engine could not be set up.
    """
    cdef _Engine engine = _Engine()
    engine.segment = SegmentType.attach(config["segment_fd"])
    engine.open_io(config)
    engine.open_service(config)
    engine.open_loop(config)
    with nogil:
        core_run(&engine.core)
    return 0
